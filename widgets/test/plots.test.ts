import { describe, expect, it } from "vitest";
import { floats, typed } from "../src/bytes";
import { toRgba } from "../src/preview";
import { path, rangeOf, short } from "../src/scale";

describe("scale", () => {
  it("ignores what is not finite", () => {
    expect(rangeOf([Float64Array.of(NaN, 2, Infinity), Float64Array.of(-1)])).toEqual({ low: -1, high: 2 });
    expect(rangeOf([Float64Array.of(NaN)])).toBeNull();
  });

  it("breaks a line where a value is missing", () => {
    const line = Float64Array.of(0, 1, NaN, 1);
    expect(path(line, { low: 0, high: 1 }, 30, 10)).toBe("M0.0 10.0L10.0 0.0M30.0 0.0");
  });

  it("draws a constant in the middle", () => {
    expect(path(Float64Array.of(5, 5), { low: 5, high: 5 }, 10, 10)).toBe("M0.0 5.0L10.0 5.0");
  });

  it("writes numbers short", () => {
    expect([0, 1234.5678, 1e7, 0.00012, -3].map(short)).toEqual(["0", "1235", "1.00e7", "1.20e-4", "-3"]);
  });
});

describe("bytes", () => {
  it("reads floats at any offset", () => {
    const raw = new ArrayBuffer(24);
    const at = new DataView(raw);
    at.setFloat64(3, 2.5, true);
    at.setFloat64(11, -1, true);
    expect([...floats(new DataView(raw, 3, 16))]).toEqual([2.5, -1]);
  });

  it("refuses a type that it doesn't know", () => {
    expect(() => typed("f2", new DataView(new ArrayBuffer(2)))).toThrow("f2");
  });

  it("makes grey and colour opaque", () => {
    expect([...toRgba(Uint8Array.of(7, 9), 1)]).toEqual([7, 7, 7, 255, 9, 9, 9, 255]);
    expect([...toRgba(Uint8Array.of(1, 2, 3), 3)]).toEqual([1, 2, 3, 255]);
    expect([...toRgba(Uint8Array.of(1, 2, 3, 4), 4)]).toEqual([1, 2, 3, 4]);
  });
});
