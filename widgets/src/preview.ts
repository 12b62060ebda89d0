// The pane beside the tree: what is known about the selected item, and a look into its data.
import { bytes, floats } from "./bytes";
import { element, setText, svg } from "./dom";
import type { Message } from "./host";
import { path, rangeOf, short } from "./scale";

const WIDTH = 1000;
const HEIGHT = 200;
export const COLOURS = ["#3b8bca", "#d9722e", "#2a9d84", "#c26ba3", "#8f7ad8", "#a98a1c", "#d1605e", "#80868f"];

interface ArrayFacts {
  name: string;
  type: string;
  shape: string;
  dims: string;
  size: string;
  chunks: string;
}

export class Preview {
  readonly el: HTMLElement;
  private readonly title = element("div", { class: "dlab-preview-title" });
  private readonly body = element("div", { class: "dlab-preview-body" });

  constructor(label: string) {
    const name = `Preview of ${label}`;
    this.el = element("div", { class: "dlab-preview", role: "region", "aria-label": name, tabindex: 0 });
    this.el.dataset.lmSuppressShortcuts = "true";
    this.el.append(this.title, this.body);
    this.hint();
  }

  hint(): void {
    setText(this.title, "");
    this.body.replaceChildren(element("p", { class: "dlab-dim" }, "Select an item to see what is in it."));
  }

  /** Names the item that was selected; its old content stays until the answer is there. */
  wait(name: string): void {
    setText(this.title, name);
    this.el.setAttribute("aria-busy", "true");
  }

  show(answer: Message, buffers: DataView[]): void {
    this.el.removeAttribute("aria-busy");
    if (answer.error) {
      this.body.replaceChildren(alarm(answer.error));
      return;
    }
    this.body.replaceChildren(...look(answer.view, buffers), ...facts(answer));
    this.el.scrollTop = 0;
  }
}

function facts(answer: Message): HTMLElement[] {
  const parts: HTMLElement[] = [];
  const arrays = answer.arrays as ArrayFacts[];
  if (arrays.length) {
    const chunked = arrays.some((array) => array.chunks);
    const head = ["array", "type", "shape", "dimensions", "size", ...(chunked ? ["chunks"] : [])];
    const rows = arrays.map((array) => [
      ...[array.name, array.type, array.shape, array.dims, array.size],
      ...(chunked ? [array.chunks] : []),
    ]);
    parts.push(table(head, rows, "dlab-arrays"));
    if (answer.more) parts.push(note(`${answer.more} more arrays`));
  }
  const attributes = answer.attrs as [string, string][];
  if (attributes.length) parts.push(table(["attribute", "value"], attributes, "dlab-attrs"));
  if (!parts.length) parts.push(note("No arrays and no attributes."));
  return parts;
}

function look(view: Message & { type?: string }, buffers: DataView[]): HTMLElement[] {
  switch (view.type) {
    case "line":
      return plot(view, buffers.map(floats));
    case "image":
      return [picture(view, buffers[0]), ...remark(view.note), ...levels(view)];
    case "table":
      return [table(view.columns, view.rows, "dlab-values"), ...remark(view.note)];
    case "text":
      return [element("pre", { class: "dlab-text" }, view.text)];
    case "error":
      return [alarm(view.text)];
    default:
      return [];
  }
}

function plot(view: Message, lines: Float64Array[]): HTMLElement[] {
  const range = rangeOf(lines);
  if (!range) return [note("No finite values to draw.")];
  const paths = lines.map((line, index) => {
    const d = path(line, range, WIDTH, HEIGHT);
    return svg("path", { d, stroke: COLOURS[index] ?? "currentColor", "vector-effect": "non-scaling-stroke" });
  });
  const label = `Line plot of ${view.names.join(", ")}`;
  const box = { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label };
  const scale = element("div", { class: "dlab-scale" }, span(short(range.high)), span(short(range.low)));
  const axis = element("div", { class: "dlab-axis" }, span("0"), span(view.axis), span(view.length.toLocaleString()));
  const figure = element("div", { class: "dlab-plot" }, scale, svg("svg", box, ...paths) as unknown as HTMLElement, axis);
  return [figure, ...(lines.length > 1 ? [legend(view.names)] : []), ...remark(view.note)];
}

function legend(names: string[]): HTMLElement {
  const entries = names.map((name, index) => {
    const key = element("i", { style: `background: ${COLOURS[index] ?? "currentColor"}` });
    return element("span", {}, key, name);
  });
  return element("div", { class: "dlab-legend" }, ...entries);
}

function picture(view: Message, buffer: DataView | undefined): HTMLElement {
  const { height, width, samples } = view as unknown as { height: number; width: number; samples: number };
  const canvas = element("canvas", { class: "dlab-image", width, height, role: "img", "aria-label": `Image of ${view.note}` });
  const context = canvas.getContext("2d");
  if (!context || !buffer) return canvas;
  context.putImageData(new ImageData(toRgba(bytes(buffer), samples), width, height), 0, 0);
  canvas.classList.toggle("dlab-coarse", Math.max(width, height) < 128);
  return canvas;
}

/** Grey, RGB or RGBA bytes as RGBA. */
export function toRgba(source: Uint8Array, samples: number): Uint8ClampedArray<ArrayBuffer> {
  const count = source.length / samples;
  const rgba = new Uint8ClampedArray(new ArrayBuffer(4 * count));
  for (let pixel = 0; pixel < count; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      rgba[4 * pixel + channel] = source[pixel * samples + (samples === 1 ? 0 : channel)] ?? 0;
    }
    rgba[4 * pixel + 3] = samples === 4 ? (source[4 * pixel + 3] ?? 0) : 255;
  }
  return rgba;
}

function levels(view: Message): HTMLElement[] {
  return view.low === undefined ? [] : [note(`black ${short(view.low)}, white ${short(view.high)}`)];
}

function table(head: string[], rows: string[][], name: string): HTMLElement {
  const top = element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)));
  const body = rows.map((row) => element("tr", {}, ...row.map((text) => element("td", {}, text))));
  const made = element("table", {}, element("thead", {}, top), element("tbody", {}, ...body));
  return element("div", { class: `dlab-table ${name}` }, made);
}

function remark(text: string | undefined): HTMLElement[] {
  return text ? [note(text)] : [];
}

function note(text: string): HTMLElement {
  return element("p", { class: "dlab-dim" }, text);
}

function span(text: string): HTMLElement {
  return element("span", {}, text);
}

function alarm(text: string): HTMLElement {
  return element("p", { class: "dlab-error", role: "alert" }, text);
}
