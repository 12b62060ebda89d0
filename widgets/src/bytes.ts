// Typed arrays over the raw buffers of a kernel message.

type Make = { new (buffer: ArrayBufferLike, offset: number, length: number): ArrayBufferView; BYTES_PER_ELEMENT: number };

const KINDS: Record<string, Make> = {
  u1: Uint8Array,
  i1: Int8Array,
  u2: Uint16Array,
  i2: Int16Array,
  u4: Uint32Array,
  i4: Int32Array,
  f4: Float32Array,
  f8: Float64Array,
};

/** A view of a buffer, or a copy of it where it doesn't lie on a multiple of the item's size. */
export function typed(kind: string, buffer: DataView): ArrayBufferView {
  const Kind = KINDS[kind];
  if (!Kind) throw new Error(`no typed array for ${kind}`);
  const aligned = buffer.byteOffset % Kind.BYTES_PER_ELEMENT === 0;
  const length = Math.floor(buffer.byteLength / Kind.BYTES_PER_ELEMENT);
  if (aligned) return new Kind(buffer.buffer, buffer.byteOffset, length);
  return new Kind(buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength), 0, length);
}

export function floats(buffer: DataView): Float64Array {
  return typed("f8", buffer) as Float64Array;
}

export function bytes(buffer: DataView): Uint8Array {
  return typed("u1", buffer) as Uint8Array;
}
