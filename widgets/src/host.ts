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

/**
 * Says something again and again until the returned function is called.
 *
 * JupyterLab makes the subshell for widgets while their first messages are already on the way. Those wait
 * for the cell that runs; what is said again goes through the subshell at once.
 */
export function insist(say: () => void, every = 400): () => void {
  say();
  const timer = setInterval(say, every);
  return () => clearInterval(timer);
}

/** A message from the kernel; what it holds depends on `op`. */
export type Message = { op: string; [name: string]: any };
