/**
 * Protobuf's wire format written out by hand, so that tests do not take the codec's word for it.
 * https://protobuf.dev/programming-guides/encoding
 */
type Value = number | bigint | string | Uint8Array;

export function varint(value: number | bigint): number[] {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128);
    rest >>= 7n;
  }
  return [...bytes, Number(rest)];
}

/** A field: integers as varints, strings and bytes with their length. */
export function field(id: number, ...values: Value[]): Uint8Array {
  return concat(
    ...values.map((value) => {
      if (typeof value === 'number' || typeof value === 'bigint')
        return Uint8Array.from([...varint(id << 3), ...varint(value)]);
      const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : value;
      return concat(Uint8Array.from([...varint((id << 3) | 2), ...varint(bytes.length)]), bytes);
    }),
  );
}

export function float(id: number, ...values: number[]): Uint8Array {
  return concat(
    ...values.map((value) =>
      concat(Uint8Array.from(varint((id << 3) | 5)), bytesOf(Float32Array.of(value))),
    ),
  );
}

/** A message in a field, from the fields in it. */
export const message = (id: number, ...fields: Uint8Array[]): Uint8Array =>
  field(id, concat(...fields));

export const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength).slice();

export const concat = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

/** The smallest model: `parts` are fields of its graph. */
export const modelOf = (...parts: Uint8Array[]): Uint8Array =>
  concat(field(1, 10), message(7, ...parts), message(8, field(1, ''), field(2, 21)));

/** A model with one initializer, from the fields of its TensorProto. */
export const tensorModel = (...parts: Uint8Array[]): Uint8Array => modelOf(message(5, ...parts));

interface Field {
  id: number;
  /** With the tag. */
  bytes: Uint8Array;
  /** Without tag and length. */
  content: Uint8Array;
}

/** The fields of a message, each with its tag. Only for well-formed bytes without groups. */
export function fieldsOf(bytes: Uint8Array): Field[] {
  const fields: Field[] = [];
  let pos = 0;
  const read = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[pos++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (pos < bytes.length) {
    const start = pos;
    const tag = read();
    const wireType = tag & 7;
    let content = pos;
    if (wireType === 0) read();
    else if (wireType === 1) pos += 8;
    else if (wireType === 5) pos += 4;
    else if (wireType === 2) {
      const length = read();
      content = pos;
      pos += length;
    } else throw new Error(`wire type ${wireType}`);
    fields.push({
      id: Math.floor(tag / 8),
      bytes: bytes.slice(start, pos),
      content: bytes.slice(content, pos),
    });
  }
  return fields;
}
