// Virtualised tree by the WAI-ARIA pattern. Focus stays on the tree element (aria-activedescendant), so
// recycling rows can't lose it.
//
// data-lm-suppress-shortcuts has to be on the focused element itself: JupyterLab's command-mode selectors
// end in ":focus", and without it "d d" typed here would delete the notebook cell.
import { element, setText } from "./dom";
import { TreeModel, type Row, type TreeNode, type VisibleRow } from "./tree-model";

const ROW = 24;
const SPARE = 6; // rows drawn beyond the edges, so that a scroll shows no gaps
const TYPING = 700; // ms between two letters of one search

export interface TreeOptions {
  label: string;
  height: number;
  request: (request: number, path: string[], start: number, count: number) => void;
  select: (node: TreeNode) => void;
}

interface DrawnRow {
  el: HTMLElement;
  twisty: HTMLElement;
  name: HTMLElement;
  kind: HTMLElement;
  facts: HTMLElement[];
  drawn: string;
  row: VisibleRow | null;
}

let trees = 0;

export class TreeView {
  readonly el: HTMLElement;
  readonly model: TreeModel;
  active: TreeNode | null = null;
  selected: TreeNode | null = null;

  private readonly id = `dlab-tree-${++trees}`;
  private readonly sizer = element("div", { class: "dlab-sizer", role: "presentation" });
  // a tree needs an item, also one that only says that there is none
  private readonly message = element("div", { class: "dlab-empty", role: "treeitem", "aria-disabled": "true" });
  private readonly live = element("div", { class: "dlab-hidden", role: "status" });
  private readonly tree: HTMLElement;
  private readonly pool = new Map<number, DrawnRow>();
  private readonly free: DrawnRow[] = [];
  private readonly waiting = new Map<number, { node: TreeNode; start: number }>();
  private readonly observer: ResizeObserver;
  private requests = 0;
  private rows = 0;
  private frame = 0;
  private wanted: number | null = null;
  private typed = "";
  private typedAt = 0;
  private height: number;
  private scroll = 0;
  private hidden = false;

  constructor(private readonly options: TreeOptions) {
    this.height = options.height;
    this.model = new TreeModel((node, start, count) => this.ask(node, start, count));
    this.tree = element(
      "div",
      {
        id: this.id,
        class: "dlab-tree",
        role: "tree",
        tabindex: 0,
        "aria-label": options.label,
        "data-lm-suppress-shortcuts": "true",
        style: `max-height: ${options.height}px`,
      },
      this.sizer,
      this.message,
    );
    this.el = element("div", { class: "dlab-tree-box" }, this.tree, this.live);
    this.tree.addEventListener("keydown", (event) => this.onKey(event));
    this.tree.addEventListener("focus", () => this.onFocus());
    this.tree.addEventListener("click", (event) => this.onClick(event));
    this.tree.addEventListener("scroll", () => this.onScroll(), { passive: true });
    // an element that was hidden or moved has lost its scroll position
    this.observer = new ResizeObserver(() => {
      if (!this.tree.clientHeight) this.hidden = true;
      this.draw();
    });
    this.observer.observe(this.tree);
  }

  /** Takes the first rows, which come with the widget, or asks for them. */
  start(first: { total: number; rows: Row[]; error?: string } | null): void {
    const { root } = this.model;
    if (first?.error) this.model.fail(root, first.error);
    else if (first) {
      this.model.receive(root, 0, first.total, first.rows);
      if (first.rows.length >= Math.min(first.total, this.model.page)) root.asked.add(0);
    } else this.model.ask(root, 0, 0);
    this.draw();
  }

  receive(request: number, answer: { start: number; total: number; rows: Row[] } | { error: string }): void {
    const asked = this.waiting.get(request);
    if (!asked) return;
    this.waiting.delete(request);
    if ("error" in answer) {
      this.model.fail(asked.node, answer.error);
      setText(this.live, answer.error);
    } else this.model.receive(asked.node, answer.start, answer.total, answer.rows);
    if (this.wanted !== null) this.go(this.wanted);
    this.draw();
  }

  /** Reads again what is in sight: a store may change while it is looked at. */
  refresh(): void {
    if (this.model.root.error !== null) this.model.retry(this.model.root);
    else this.model.refresh();
    if (this.selected) this.options.select(this.selected);
    this.draw();
  }

  focus(): void {
    this.tree.focus({ preventScroll: true });
  }

  dispose(): void {
    this.observer.disconnect();
    cancelAnimationFrame(this.frame);
  }

  private ask(node: TreeNode, start: number, count: number): void {
    const request = ++this.requests;
    this.waiting.set(request, { node, start });
    this.options.request(request, node.path, start, count);
  }

  private draw(): void {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      this.render();
    });
  }

  private render(): void {
    const { model, tree } = this;
    if (this.active && !model.has(this.active)) this.active = null;
    if (this.selected && !model.has(this.selected)) this.selected = null;
    this.height = tree.clientHeight || this.height; // 0 while hidden or while a theme is being changed
    if (tree.clientHeight && this.hidden) {
      this.hidden = false;
      if (tree.scrollTop === 0 && this.scroll > 0) tree.scrollTop = this.scroll;
    }
    const height = `${model.size * ROW}px`;
    if (this.sizer.style.height !== height) this.sizer.style.height = height;
    this.say();
    const top = Math.floor(tree.scrollTop / ROW);
    const rows = model.window(top - SPARE, top + Math.ceil(this.height / ROW) + SPARE);
    this.addActive(rows);
    this.paint(rows);
  }

  private say(): void {
    const { root } = this.model;
    const said = root.error ?? (root.total === null ? "Loading…" : root.total === 0 ? "Nothing stored yet" : "");
    setText(this.message, said);
    this.message.classList.toggle("dlab-error", root.error !== null);
    this.message.hidden = !said;
  }

  /** Keeps the active row in the document also where it is scrolled away: the focus refers to it. */
  private addActive(rows: VisibleRow[]): void {
    const node = this.active;
    if (!node?.parent || rows.some((row) => row.node === node)) return;
    const at = this.model.indexOf(node);
    if (at < this.model.size) rows.push({ at, parent: node.parent, index: node.index, node });
  }

  private paint(rows: VisibleRow[]): void {
    const kept = new Set(rows.map((row) => row.at));
    for (const [at, drawn] of this.pool) {
      if (kept.has(at)) continue;
      this.pool.delete(at);
      drawn.el.remove();
      this.free.push(drawn);
    }
    for (const row of rows) {
      let drawn = this.pool.get(row.at);
      if (!drawn) {
        drawn = this.free.pop() ?? this.newRow();
        this.pool.set(row.at, drawn);
        this.sizer.append(drawn.el);
      }
      this.paintRow(drawn, row);
    }
    const active = this.active && this.pool.get(this.model.indexOf(this.active));
    if (active) this.tree.setAttribute("aria-activedescendant", active.el.id);
    else this.tree.removeAttribute("aria-activedescendant");
  }

  private newRow(): DrawnRow {
    const part = (name: string) => element("span", { class: `dlab-${name}` });
    const [twisty, name, kind] = [part("twisty"), part("name"), part("kind")];
    const facts = [part("type"), part("shape"), part("size")];
    twisty.setAttribute("aria-hidden", "true");
    const el = element("div", { role: "treeitem", class: "dlab-row", id: `${this.id}-${++this.rows}` });
    el.append(twisty, name, kind, ...facts);
    return { el, twisty, name, kind, facts, drawn: "", row: null };
  }

  private paintRow(drawn: DrawnRow, row: VisibleRow): void {
    const { node } = row;
    const state = [node?.row, node?.open, node?.error, node?.total, node === this.active, node === this.selected];
    const signature = JSON.stringify([row.at, row.parent.total, node?.path, row.index, ...state]);
    drawn.row = row;
    if (drawn.drawn === signature) return;
    drawn.drawn = signature;
    const { el } = drawn;
    el.style.transform = `translateY(${row.at * ROW}px)`;
    el.style.setProperty("--dlab-level", String(row.parent.level));
    el.setAttribute("aria-level", String(row.parent.level + 1));
    el.setAttribute("aria-setsize", String(row.parent.total ?? -1));
    el.setAttribute("aria-posinset", String(row.index + 1));
    el.setAttribute("aria-selected", String(node !== null && node === this.selected));
    el.toggleAttribute("data-active", node !== null && node === this.active);
    this.paintText(drawn, node);
  }

  private paintText(drawn: DrawnRow, node: TreeNode | null): void {
    const { el, twisty, name, kind, facts } = drawn;
    const row = node?.row;
    const error = node?.error ?? row?.error ?? null;
    const busy = !node || (node.open && node.total === null);
    if (busy) el.setAttribute("aria-busy", "true");
    else el.removeAttribute("aria-busy");
    if (node && !node.row.leaf) el.setAttribute("aria-expanded", String(node.open));
    else el.removeAttribute("aria-expanded");
    el.dataset.kind = row?.kind ?? "";
    el.classList.toggle("dlab-error", error !== null);
    el.title = error ?? row?.name ?? "";
    setText(twisty, !node || node.row.leaf ? "" : node.open ? "▾" : "▸");
    setText(name, row?.name ?? "Loading…");
    setText(kind, row?.kind ?? "");
    const told = error !== null ? [error, "", ""] : [row?.type ?? "", row?.shape ?? "", row?.size ?? ""];
    facts.forEach((fact, index) => setText(fact, told[index] ?? ""));
  }

  /** Makes a visible row active and scrolls to it. */
  private go(at: number): void {
    const { model, tree } = this;
    if (!model.size) return;
    const target = Math.max(0, Math.min(model.size - 1, at));
    const y = target * ROW;
    const height = tree.clientHeight || this.height;
    // the content may have grown since the last animation frame
    this.sizer.style.height = `${model.size * ROW}px`;
    if (y < tree.scrollTop) tree.scrollTop = y;
    else if (y + ROW > tree.scrollTop + height) tree.scrollTop = y + ROW - height;
    const row = model.rowAt(target);
    this.wanted = row.node ? null : target;
    if (row.node) this.active = row.node;
    else model.ask(row.parent, row.index, row.index);
    this.draw();
  }

  private choose(node: TreeNode): void {
    this.active = this.selected = node;
    this.options.select(node);
    this.draw();
  }

  private toggle(node: TreeNode): void {
    if (node.row.leaf) return;
    if (node.open) this.model.collapse(node);
    else this.model.expand(node);
    setText(this.live, `${node.row.name} ${node.open ? "expanded" : "collapsed"}`);
    this.draw();
  }

  private onFocus(): void {
    if (!this.active) this.go(Math.ceil(this.tree.scrollTop / ROW));
  }

  private onScroll(): void {
    if (!this.hidden && this.tree.isConnected && this.tree.clientHeight) this.scroll = this.tree.scrollTop;
    this.draw();
  }

  private onClick(event: MouseEvent): void {
    const target = event.target as Element;
    const el = target.closest(".dlab-row");
    const node = [...this.pool.values()].find((drawn) => drawn.el === el)?.row?.node;
    this.focus();
    if (!node) return;
    if (target.closest(".dlab-twisty") || node === this.selected) {
      this.active = node;
      if (node.error !== null) this.model.retry(node);
      this.toggle(node);
    } else this.choose(node);
  }

  private onKey(event: KeyboardEvent): void {
    const jump = event.key === "Home" || event.key === "End";
    if (event.altKey || event.metaKey || (event.ctrlKey && !jump)) return;
    if (!this.move(event.key) && !this.act(event.key) && !this.type(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  private move(key: string): boolean {
    const at = this.wanted ?? (this.active ? this.model.indexOf(this.active) : -1);
    const page = Math.max(1, Math.floor(this.height / ROW) - 1);
    const moves: Record<string, number> = {
      ArrowDown: at + 1,
      ArrowUp: at - 1,
      PageDown: at + page,
      PageUp: at - page,
      Home: 0,
      End: this.model.size - 1,
    };
    const target = moves[key];
    if (target === undefined) return false;
    this.go(target);
    return true;
  }

  private act(key: string): boolean {
    const node = this.active;
    if (key === "ArrowRight") {
      if (node && !node.row.leaf && !node.open) this.toggle(node);
      else if (node?.open && node.total) this.go(this.model.indexOf(node) + 1);
      return true;
    }
    if (key === "ArrowLeft") {
      if (node?.open) this.toggle(node);
      else if (node?.parent?.parent) this.go(this.model.indexOf(node.parent));
      return true;
    }
    if (key !== "Enter" && key !== " ") return false;
    if (!node) return true;
    if (node !== this.selected) this.choose(node);
    if (key === "Enter") this.toggle(node);
    return true;
  }

  private type(key: string): boolean {
    if (key.length !== 1) return false;
    const now = performance.now();
    this.typed = now - this.typedAt > TYPING ? key : this.typed + key;
    this.typedAt = now;
    const hit = this.model.find(this.active, this.typed);
    if (hit) this.go(this.model.indexOf(hit));
    return true;
  }
}
