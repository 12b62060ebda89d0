// The numbers of a run: per stream what came, what waits and what was lost, and how the panel keeps up.
import { element, setText } from "./dom";

export interface StreamStatus {
  name: string;
  rate: number;
  produced: number;
  fill: number;
  lost: number;
  lag: number;
  bytes: number;
}

export interface Status {
  state: string;
  elapsed: number;
  error: string | null;
  fault?: string | null;
  skipped?: number;
  streams: StreamStatus[];
}

const HEADS: [label: string, title: string][] = [
  ["stream", ""],
  ["rate", "Samples per second"],
  ["samples", "Samples taken in since the start"],
  ["ring", "Share of the ring that is filled"],
  ["lag", "Samples that the slowest writer has still to write"],
  ["written", "Bytes handed to the writers' files"],
  ["lost", "Samples lost by the acquisition: by the device, or overwritten before they were written"],
];

export class Numbers {
  readonly el: HTMLElement;
  private readonly body = element("tbody");
  private readonly line = element("div", { class: "dlab-line" });
  private readonly rows = new Map<string, HTMLElement[]>();

  constructor() {
    const heads = HEADS.map(([label, title]) => element("th", { scope: "col", title }, label));
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...heads)), this.body);
    this.el = element("div", { class: "dlab-numbers" }, element("div", { class: "dlab-streams" }, table), this.line);
  }

  show(status: Status, view: { shown: number; dropped: number }): void {
    for (const stream of status.streams) this.row(stream);
    const lost = status.streams.reduce((sum, stream) => sum + stream.lost, 0);
    const parts = [
      `${status.elapsed.toFixed(1)} s`,
      `${(status.state === "running" ? view.shown : 0).toFixed(0)} frames/s`,
      `lost ${count(lost)}`,
      `skipped ${count(status.skipped ?? 0)}`,
      `dropped ${count(view.dropped)}`,
    ];
    setText(this.line, parts.join(" · "));
    this.line.title = "lost: samples, by the acquisition; skipped and dropped: pictures only, by the kernel and by this page";
  }

  private row(stream: StreamStatus): void {
    let cells = this.rows.get(stream.name);
    if (!cells) {
      cells = HEADS.map((_, index) => element(index ? "td" : "th", index ? {} : { scope: "row" }));
      this.rows.set(stream.name, cells);
      this.body.append(element("tr", {}, ...cells));
    }
    const texts = [stream.name, rate(stream.rate), count(stream.produced), percent(stream.fill), count(stream.lag)];
    [...texts, size(stream.bytes), count(stream.lost)].forEach((text, index) => setText(cells[index]!, text));
    cells.at(-1)?.classList.toggle("dlab-error", stream.lost > 0);
  }
}

/** A count with separators, always the same way. */
export function count(value: number): string {
  return Math.round(value).toLocaleString("en");
}

export function rate(value: number): string {
  return `${value >= 100 ? count(value) : value.toFixed(1)}/s`;
}

export function percent(share: number): string {
  return `${Math.round(100 * share)} %`;
}

/** A size in decimal units with three figures. */
export function size(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit ? Number(value.toPrecision(3)) : value} ${units[unit]}`;
}
