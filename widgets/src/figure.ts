// One ordinary Bokeh figure that takes its data as raw bytes and its colours from the page.
import type { BokehJS, BokehModel, DataSource, FigureModel } from "./bokeh";
import { typed } from "./bytes";
import { element, setText } from "./dom";
import type { Content } from "./frames";

export interface PlotFacts {
  source: string;
  title: string;
  unit: string;
  keys: [label: string, colour: string][];
  item: Record<string, unknown>;
}

const GREY = Uint32Array.from({ length: 256 }, (_, level) => (0xff000000 | (level * 0x010101)) >>> 0);

export class LiveFigure {
  readonly el: HTMLElement;
  private readonly holder = element("div", { class: "dlab-figure-plot" });
  private readonly unit = element("span", { class: "dlab-dim" });
  private bokeh: BokehJS | null = null;
  private figure: FigureModel | null = null;
  private source: DataSource | null = null;
  private clear: (() => void) | null = null;

  constructor(private readonly facts: PlotFacts) {
    this.unit.textContent = facts.unit;
    const keys = facts.keys.map(([label, colour]) =>
      element("span", { class: "dlab-key" }, element("i", { style: `background: ${colour}` }), label),
    );
    const head = element("figcaption", {}, element("strong", {}, facts.title), this.unit, ...keys);
    this.el = element("figure", { class: "dlab-figure" }, head, this.holder);
  }

  async embed(bokeh: BokehJS): Promise<void> {
    const views = await bokeh.embed.embed_item({ ...this.facts.item, target_id: null }, this.holder);
    const [view] = views;
    if (!view) throw new Error("Bokeh drew no figure");
    this.bokeh = bokeh;
    this.figure = view.model;
    this.source = view.model.document.get_model_by_name(this.facts.source) as DataSource;
    this.clear = () => views.clear?.();
  }

  apply({ part, buffers }: Content): void {
    if (!this.source || !this.figure) return;
    const data = { ...this.source.data };
    part.columns.forEach(([name, type, shape], index) => {
      const buffer = buffers[index];
      if (buffer) data[name] = shape.length < 2 ? typed(type, buffer) : [this.image(buffer, shape)];
    });
    this.source.data = data;
    if (part.unit !== null) setText(this.unit, part.unit);
    if (part.y) this.figure.y_range.setv({ start: part.y[0], end: part.y[1] });
  }

  /** Takes the colours of the page: Bokeh draws on a canvas, which knows no style sheet. */
  dress(): void {
    const { figure } = this;
    if (!figure) return;
    const text = colour(this.holder, "--dlab-dim");
    const line = colour(this.holder, "--dlab-line");
    figure.setv({ background_fill_color: null, border_fill_color: null, outline_line_color: line });
    const axes = [...figure.below, ...figure.left].filter((part) => part.type.endsWith("Axis"));
    for (const axis of axes) axis.setv(axisColours(text, line));
    for (const grid of figure.center.filter((part: BokehModel) => part.type === "Grid")) {
      grid.setv({ grid_line_color: line, grid_line_alpha: 0.6 });
    }
  }

  dispose(): void {
    this.clear?.();
  }

  private image(buffer: DataView, shape: number[]): unknown {
    const bytes = typed("u1", buffer) as Uint8Array;
    const [height = 0, width = 0, samples = 1] = shape;
    const rgba = new Uint32Array(height * width);
    for (let pixel = 0; pixel < rgba.length; pixel++) {
      rgba[pixel] = samples === 1 ? GREY[bytes[pixel] ?? 0]! : colourAt(bytes, pixel * samples);
    }
    const { ndarray } = this.bokeh!.require("core/util/ndarray");
    return ndarray(rgba.buffer, { dtype: "uint32", shape: [height, width] });
  }
}

function colourAt(bytes: Uint8Array, at: number): number {
  return (0xff000000 | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at] ?? 0)) >>> 0;
}

function axisColours(text: string, line: string): Record<string, unknown> {
  return {
    axis_line_color: line,
    major_tick_line_color: line,
    minor_tick_line_color: null,
    major_label_text_color: text,
    axis_label_text_color: text,
    axis_label_text_font_style: "normal",
  };
}

/** The colour that a custom property stands for, in a form that Bokeh reads. */
function colour(el: HTMLElement, property: string): string {
  const probe = element("span", { style: `color: var(${property})` });
  el.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
