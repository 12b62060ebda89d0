import { describe, expect, it } from "vitest";
import { Inbox, Pace, type Frame } from "../src/frames";
import { count, percent, rate, size } from "../src/numbers";

const buffer = (value: number) => new DataView(Float64Array.of(value).buffer);
const frame = (seq: number, ...sources: [string, [number, number] | null][]): Frame => ({
  seq,
  time: 0,
  parts: sources.map(([source, y]) => ({ source, columns: [["x", "f8", [1]]], y, unit: y && "V" })),
});

describe("inbox", () => {
  it("asks for one drawing, and keeps the newest content of every figure", () => {
    const inbox = new Inbox();
    expect(inbox.put(frame(1, ["a", null], ["b", null]), [buffer(1), buffer(2)])).toBe(true);
    expect(inbox.put(frame(2, ["a", null]), [buffer(3)])).toBe(false);
    const taken = inbox.take();
    expect(taken?.frame.seq).toBe(2);
    expect(taken?.contents.map(({ part, buffers }) => [part.source, buffers[0]?.getFloat64(0, true)])).toEqual([
      ["a", 3],
      ["b", 2],
    ]);
    expect(inbox.dropped).toBe(1);
    expect(inbox.take()).toBeNull();
    expect(inbox.put(frame(3, ["a", null]), [buffer(4)])).toBe(true);
    expect(inbox.dropped).toBe(1);
  });

  it("keeps a range that came with a frame that was never drawn", () => {
    const inbox = new Inbox();
    inbox.put(frame(1, ["a", [0, 5]]), [buffer(1)]);
    inbox.put(frame(2, ["a", null]), [buffer(2)]);
    expect(inbox.take()?.contents[0]?.part).toMatchObject({ y: [0, 5], unit: "V" });
    inbox.put(frame(3, ["a", null]), [buffer(2)]);
    expect(inbox.take()?.contents[0]?.part.y).toBeNull();
  });
});

describe("pace", () => {
  it("acknowledges every sixth frame, or after 150 ms", () => {
    const pace = new Pace();
    const quick = Array.from({ length: 13 }, (_, k) => pace.drawn(k + 1, k * 10));
    expect(quick.flatMap((ack, k) => (ack ? [k + 1] : []))).toEqual([1, 7, 13]);
    expect(pace.drawn(14, 130)).toBe(false);
    expect(pace.drawn(15, 400)).toBe(true);
    expect(pace.applied).toBe(15);
  });

  it("counts what was drawn per second", () => {
    const pace = new Pace();
    for (let frames = 0; frames <= 60; frames++) pace.drawn(frames, frames * 25);
    expect(pace.rate).toBeCloseTo(40, 0);
  });
});

describe("numbers", () => {
  it("are short and always written the same way", () => {
    expect([count(1234567), rate(30.04), rate(10000), percent(0.256)]).toEqual(["1,234,567", "30.0/s", "10,000/s", "26 %"]);
    expect([0, 999, 1000, 999_600, 33_200_000_000].map(size)).toEqual(["0 B", "999 B", "1 kB", "1 MB", "33.2 GB"]);
  });
});
