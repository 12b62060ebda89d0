// The bar of a live panel: state, Start, Pause or Resume, Stop, and a mark with text.
import { element, setText } from "./dom";
import type { Status } from "./numbers";

type Send = (message: { op: string; text?: string }) => void;

const ENDED = new Set(["stopped", "failed"]);

/** Whether nothing changes any more. */
export const hasEnded = (state: string): boolean => ENDED.has(state);

export class Controls {
  readonly el: HTMLElement;
  private readonly state = element("span", { class: "dlab-state", role: "status" });
  private readonly error = element("p", { class: "dlab-error", role: "alert", hidden: true });
  private readonly start: HTMLButtonElement;
  private readonly pause: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly mark: HTMLButtonElement;
  private readonly text: HTMLInputElement;
  private broken = "";
  private quiet = "";
  private status: Status | null = null;

  constructor(title: string, send: Send) {
    this.start = button("Start", () => send({ op: "start" }));
    this.pause = button("Pause", () => send({ op: this.pause.dataset.op ?? "pause" }));
    this.stop = button("Stop", () => send({ op: "stop" }));
    this.mark = button("Mark", () => undefined, "submit");
    const quiet = { type: "text", "data-lm-suppress-shortcuts": "true", autocomplete: "off", maxlength: 500 };
    this.text = element("input", { ...quiet, placeholder: "note", "aria-label": "Text of the mark" });
    const form = element("form", { class: "dlab-mark" }, this.text, this.mark);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      send({ op: "mark", text: this.text.value });
      this.text.value = "";
    });
    // keys typed into the note are no notebook shortcuts
    form.addEventListener("keydown", (event) => event.stopPropagation());
    const name = element("span", { class: "dlab-label", title }, title);
    const buttons = element("div", { class: "dlab-buttons", role: "group" }, this.start, this.pause, this.stop);
    const bar = element("div", { class: "dlab-bar" }, name, this.state, buttons, form);
    this.el = element("div", {}, bar, this.error);
  }

  show(status: Status): void {
    this.status = status;
    const { error, fault } = status;
    const state = this.quiet ? "no answer" : status.state;
    setText(this.state, state);
    this.state.dataset.state = state;
    const going = !ENDED.has(state) && state !== "ready" && !this.quiet;
    this.start.disabled = state !== "ready";
    this.pause.disabled = !going;
    this.stop.disabled = !going;
    this.mark.disabled = this.text.disabled = !going;
    this.pause.dataset.op = state === "paused" ? "resume" : "pause";
    setText(this.pause, state === "paused" ? "Resume" : "Pause");
    this.tell([error, fault, this.broken, this.quiet].filter(Boolean).join(" · "));
  }

  /** Says that the kernel has fallen silent, or with an empty text that it speaks again. */
  silence(text: string): void {
    if (text === this.quiet) return;
    this.quiet = text;
    if (this.status) this.show(this.status);
  }

  alarm(text: string): void {
    this.broken = text;
    this.tell(text);
  }

  private tell(text: string): void {
    setText(this.error, text);
    this.error.hidden = !text;
  }
}

function button(label: string, act: () => void, type = "button"): HTMLButtonElement {
  const made = element("button", { type, class: "dlab-button" }, label);
  made.addEventListener("click", act);
  return made;
}
