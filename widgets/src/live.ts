// Entry of the live panel: buttons, figures fed by binary frames, and the numbers of the run.
import { loadBokeh } from "./bokeh";
import { Controls, hasEnded } from "./controls";
import { element } from "./dom";
import { LiveFigure, type PlotFacts } from "./figure";
import { Inbox, Pace, type Frame } from "./frames";
import { insist, type Host, type Message, type RenderContext } from "./host";
import { Numbers, type Status } from "./numbers";

const ALIVE = 5000; // ms; a page that says nothing for half a minute counts as gone
const SILENCE = 8000; // ms; the kernel tells the state four times a second, also while a cell runs

class LivePanel {
  private readonly page = Math.random().toString(36).slice(2); // several views of one widget share its messages
  private readonly inbox = new Inbox();
  private readonly pace = new Pace();
  private readonly controls: Controls;
  private readonly numbers = new Numbers();
  private readonly figures: Map<string, LiveFigure>;
  private readonly seen: IntersectionObserver;
  private readonly themes: MutationObserver;
  private readonly timer: ReturnType<typeof setInterval>;
  private ready = false;
  private visible = true;
  private raf = 0;
  private rest = () => {};
  private heard = performance.now();
  private ended = false;

  constructor(
    private readonly model: Host,
    private readonly el: HTMLElement,
  ) {
    const plots = model.get("plots") as PlotFacts[];
    this.controls = new Controls(String(model.get("title")), (message) => this.send(message));
    this.figures = new Map(plots.map((facts) => [facts.source, new LiveFigure(facts)]));
    const figures = [...this.figures.values()].map((figure) => figure.el);
    el.classList.add("dlab", "dlab-live");
    el.setAttribute("role", "region");
    el.setAttribute("aria-label", `Live panel of ${String(model.get("title"))}`);
    el.append(this.controls.el, element("div", { class: "dlab-figures" }, ...figures), this.numbers.el);
    this.show(model.get("status") as Status);
    model.on("msg:custom", this.receive);
    this.seen = new IntersectionObserver((entries) => this.look(entries.at(-1)?.isIntersecting ?? true));
    this.themes = new MutationObserver(() => this.dress());
    this.themes.observe(document.body, { attributes: true });
    document.addEventListener("visibilitychange", this.here);
    this.timer = setInterval(() => {
      this.here();
      this.listen();
    }, ALIVE);
  }

  async start(): Promise<void> {
    try {
      const bokeh = await loadBokeh(this.model, this.page);
      await Promise.all([...this.figures.values()].map((figure) => figure.embed(bokeh)));
    } catch (error) {
      this.controls.alarm(`The figures can't be drawn: ${error instanceof Error ? error.message : String(error)}`);
    }
    this.dress();
    this.ready = true;
    this.seen.observe(this.el);
    this.rest = insist(() => this.send({ op: "ready" }));
  }

  dispose(): void {
    this.send({ op: "gone" });
    this.ready = false;
    this.model.off("msg:custom", this.receive);
    document.removeEventListener("visibilitychange", this.here);
    clearInterval(this.timer);
    this.rest();
    cancelAnimationFrame(this.raf);
    this.seen.disconnect();
    this.themes.disconnect();
    for (const figure of this.figures.values()) figure.dispose();
    this.el.replaceChildren();
  }

  private readonly receive = (message: Message, buffers: DataView[]): void => {
    this.heard = performance.now();
    this.controls.silence("");
    if (message.op === "status") {
      if (this.ready) this.rest();
      this.show(message as unknown as Status);
    }
    if (message.op !== "frame" || !this.ready) return;
    if (this.inbox.put(message as unknown as Frame, buffers)) this.raf = requestAnimationFrame(() => this.draw());
  };

  private draw(): void {
    const next = this.inbox.take();
    if (!next) return;
    for (const content of next.contents) this.figures.get(content.part.source)?.apply(content);
    if (this.pace.drawn(next.frame.seq, performance.now())) {
      this.send({ op: "ack", seq: next.frame.seq, dropped: this.inbox.dropped });
    }
    this.el.dataset.frames = String(this.pace.applied);
    this.el.dataset.latency = String(Math.round(Date.now() - 1000 * next.frame.time));
  }

  /** A panel whose kernel is gone must not look as if it were recording. */
  private listen(): void {
    if (this.ended || performance.now() - this.heard < SILENCE) return;
    this.controls.silence("No answer from the kernel: what is shown here is the last that it told.");
  }

  private show(status: Status): void {
    this.ended = hasEnded(status.state);
    this.controls.show(status);
    this.numbers.show(status, { shown: this.pace.rate, dropped: this.inbox.dropped });
  }

  private look(visible: boolean): void {
    if (visible === this.visible) return;
    this.visible = visible;
    this.here();
  }

  private readonly here = (): void => {
    if (this.ready) this.send({ op: "here" });
  };

  private dress(): void {
    this.colour();
    setTimeout(() => this.colour(), 400); // a theme's style sheet comes later
  }

  /** Bokeh may refuse while it lays a figure out: wrong colours for a moment are no reason for an alarm. */
  private colour(): void {
    for (const figure of this.figures.values()) {
      try {
        figure.dress();
      } catch (error) {
        console.warn("datastore_lab: a live figure kept its old colours", error);
      }
    }
  }

  private send(message: { op: string; [name: string]: unknown }): void {
    try {
      this.model.send({ ...message, page: this.page, visible: this.visible && !document.hidden });
    } catch {
      this.heard = -Infinity; // the widget's channel is closed: its kernel is gone
      this.listen();
    }
  }
}

function render({ model, el }: RenderContext): () => void {
  const panel = new LivePanel(model, el);
  void panel.start();
  return () => panel.dispose();
}

export default { render };
