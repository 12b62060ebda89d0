// Numbers of plots: ranges, ticks as text, and the path of a line.

export interface Range {
  low: number;
  high: number;
}

/** The range of all finite values; null if there are none. */
export function rangeOf(lines: readonly Float64Array[]): Range | null {
  let low = Infinity;
  let high = -Infinity;
  for (const line of lines) {
    for (const value of line) {
      if (!Number.isFinite(value)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  return low <= high ? { low, high } : null;
}

/** A number with at most four figures. */
export function short(value: number): string {
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** The SVG path of a line in a box; values that are not finite leave gaps. */
export function path(line: Float64Array, range: Range, width: number, height: number): string {
  const across = line.length > 1 ? width / (line.length - 1) : 0;
  const span = range.high - range.low || 1;
  const flat = range.high === range.low;
  let text = "";
  let drawing = false;
  line.forEach((value, index) => {
    if (!Number.isFinite(value)) {
      drawing = false;
      return;
    }
    const y = flat ? height / 2 : height * (1 - (value - range.low) / span);
    text += `${drawing ? "L" : "M"}${(index * across).toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  return text;
}
