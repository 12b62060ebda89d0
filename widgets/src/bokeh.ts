// BokehJS from the kernel's own package: versions can't differ, and nothing is fetched from elsewhere.
import { insist, type Host, type Message } from "./host";

/** The few parts of BokehJS that a live figure uses. */
export interface BokehModel {
  type: string;
  name: string | null;
  document: BokehDocument;
  setv(values: Record<string, unknown>): void;
}

export interface DataSource extends BokehModel {
  data: Record<string, unknown>;
}

export interface FigureModel extends BokehModel {
  y_range: BokehModel;
  above: BokehModel[];
  below: BokehModel[];
  left: BokehModel[];
  right: BokehModel[];
  center: BokehModel[];
}

export interface BokehDocument {
  get_model_by_name(name: string): BokehModel | null;
}

export interface BokehView {
  model: FigureModel;
}

export interface BokehJS {
  version: string;
  embed: { embed_item(item: unknown, target: HTMLElement): Promise<Iterable<BokehView> & { clear?: () => void }> };
  require(name: "core/util/ndarray"): {
    ndarray(buffer: ArrayBufferLike, options: { dtype: string; shape: number[] }): unknown;
  };
}

type Page = { Bokeh?: BokehJS; [loaded: `datastore-lab-bokeh-${string}`]: Promise<BokehJS> | undefined };

/** Loads BokehJS once per page and version; a Bokeh of the page's own stays what it is. */
export function loadBokeh(model: Host, page: string): Promise<BokehJS> {
  const here = globalThis as unknown as Page;
  const version = String(model.get("bokeh"));
  if (here.Bokeh?.version === version) return Promise.resolve(here.Bokeh);
  return (here[`datastore-lab-bokeh-${version}`] ??= fetchBokeh(model, page));
}

function fetchBokeh(model: Host, page: string): Promise<BokehJS> {
  return new Promise((resolve, reject) => {
    const receive = (message: Message, buffers: DataView[]) => {
      if (message.op !== "bokeh") return;
      model.off("msg:custom", receive);
      rest();
      runScript(buffers[0]).then(resolve, reject);
    };
    model.on("msg:custom", receive);
    const rest = insist(() => model.send({ op: "bokeh", page }));
  });
}

function runScript(source: DataView | undefined): Promise<BokehJS> {
  return new Promise((resolve, reject) => {
    const here = globalThis as unknown as Page;
    const before = here.Bokeh;
    const bytes = source ? [source as DataView<ArrayBuffer>] : [];
    const url = URL.createObjectURL(new Blob(bytes, { type: "text/javascript" }));
    const script = document.createElement("script");
    script.onload = () => {
      URL.revokeObjectURL(url);
      const loaded = here.Bokeh;
      if (before) here.Bokeh = before;
      if (loaded) resolve(loaded);
      else reject(new Error("BokehJS did not start"));
    };
    script.onerror = () => reject(new Error("this page does not allow BokehJS to run"));
    script.src = url;
    document.head.append(script);
  });
}
