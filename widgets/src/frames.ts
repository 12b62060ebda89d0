// Frames from the kernel, without any drawing: the newest content of each figure wins.

/** New content of one figure: columns of its source with their raw bytes, and its range and unit if they changed. */
export interface Part {
  source: string;
  columns: [name: string, type: string, shape: number[]][];
  y: [number, number] | null;
  unit: string | null;
}

export interface Frame {
  seq: number;
  time: number;
  parts: Part[];
}

export interface Content {
  part: Part;
  buffers: DataView[];
}

const ACK_FRAMES = 6; // one acknowledgement per frame would make JupyterLab lay out its status bar each time
const ACK_MS = 150;

/** Holds what came since the last animation frame. */
export class Inbox {
  /** Frames that were replaced, in whole or in part, before they were drawn. */
  dropped = 0;
  private frame: Frame | null = null;
  private readonly contents = new Map<string, Content>();

  /** Takes a frame; says whether drawing has to be asked for. */
  put(frame: Frame, buffers: DataView[]): boolean {
    const first = this.frame === null;
    if (!first) this.dropped += 1;
    this.frame = frame;
    let next = 0;
    for (const part of frame.parts) {
      const own = buffers.slice(next, (next += part.columns.length));
      const before = this.contents.get(part.source)?.part; // a range that was not drawn yet still counts
      const range = part.y || !before ? part : { y: before.y, unit: before.unit };
      this.contents.set(part.source, { part: { ...part, y: range.y, unit: range.unit }, buffers: own });
    }
    return first;
  }

  /** Gives what is to be drawn, and forgets it. */
  take(): { frame: Frame; contents: Content[] } | null {
    const { frame } = this;
    if (!frame) return null;
    const contents = [...this.contents.values()];
    this.frame = null;
    this.contents.clear();
    return { frame, contents };
  }
}

/** Decides which drawn frames are acknowledged, and how many are drawn per second. */
export class Pace {
  applied = 0;
  rate = 0;
  private acked = 0;
  private ackedAt = -Infinity;
  private counted = 0;
  private countedAt = -Infinity;

  /** Notes a drawn frame; says whether it has to be acknowledged. */
  drawn(seq: number, now: number): boolean {
    this.applied += 1;
    if (now - this.countedAt > 1000) {
      const frames = this.applied - this.counted;
      this.rate = Number.isFinite(this.countedAt) ? (1000 * frames) / (now - this.countedAt) : 0;
      this.counted = this.applied;
      this.countedAt = now;
    }
    if (seq - this.acked < ACK_FRAMES && now - this.ackedAt < ACK_MS) return false;
    this.acked = seq;
    this.ackedAt = now;
    return true;
  }
}
