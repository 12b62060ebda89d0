// Entry of the tree browser: the tree, the preview beside it, and the messages between them and the kernel.
import { element } from "./dom";
import type { Message, RenderContext } from "./host";
import { Preview } from "./preview";
import { TreeView } from "./tree-view";

function header(label: string, badges: string[], refresh: () => void): HTMLElement {
  const marks = badges.map((badge) => element("span", { class: "dlab-badge" }, badge));
  const name = element("span", { class: "dlab-label", title: label }, label);
  const again = element("button", { type: "button", class: "dlab-again", title: "Read the tree again" }, "Refresh");
  again.addEventListener("click", refresh);
  return element("div", { class: "dlab-head" }, name, ...marks, again);
}

function render({ model, el }: RenderContext): () => void {
  let wish = 0;
  const page = Math.random().toString(36).slice(2); // several views of one widget share its messages
  const label = String(model.get("label"));
  const preview = new Preview(label);
  const tree = new TreeView({
    label,
    height: Number(model.get("height")),
    request: (req, path, start, count) => model.send({ op: "children", page, req, path, start, count }),
    select: (node) => {
      const array = node.row.array ? node.row.name : null;
      const path = array === null ? node.path : node.path.slice(0, -1);
      preview.wait(node.path.join(" / "));
      if (node.row.error) preview.show({ op: "preview", error: node.row.error }, []);
      else model.send({ op: "preview", page, req: ++wish, path, array });
    },
  });
  const receive = (message: Message, buffers: DataView[]) => {
    if (message.page !== page) return;
    if (message.op === "children") tree.receive(message.req, message as never);
    else if (message.op === "preview" && message.req === wish) preview.show(message, buffers);
  };
  model.on("msg:custom", receive);
  el.classList.add("dlab", "dlab-browser");
  el.append(header(label, model.get("badges") as string[], () => tree.refresh()), element("div", { class: "dlab-panes" }, tree.el, preview.el));
  const first = model.get("first") as { total?: number };
  tree.start(first.total === undefined ? null : (first as never));
  return () => {
    model.off("msg:custom", receive);
    tree.dispose();
    el.replaceChildren();
  };
}

export default { render };
