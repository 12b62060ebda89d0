// The part of anywidget's model that the widgets use.

export interface Host {
  get(name: string): unknown;
  send(content: unknown): void;
  on(event: string, callback: (content: Message, buffers: DataView[]) => void): void;
  off(event: string, callback: (content: Message, buffers: DataView[]) => void): void;
}

export interface RenderContext {
  model: Host;
  el: HTMLElement;
}

/** A message from the kernel; what it holds depends on `op`. */
export type Message = { op: string; [name: string]: any };
