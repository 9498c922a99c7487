import type { Reader } from 'protobufjs/light.js';
import { modelError } from '../errors.js';
import type { Protobuf } from './codec.js';
import type { Int64 } from './schema.js';

/**
 * A protobufjs reader with our meaning for some wire types (see `PROTOBUF_TYPE` in the codec):
 * int64 is exact, uint64 is an int64 that must be safe, the `packed` kinds keep their wire form.
 * Reads of repeated packed fields push into the array that they get.
 */
export function readerClass(pb: Protobuf): typeof Reader {
  class ModelReader extends pb.Reader {
    constructor(bytes: Uint8Array) {
      super(bytes);
      this.discardUnknown = false;
    }
  }
  const { int64, stringVerify } = pb.Reader.prototype;

  function readInt64(this: Reader): Int64 {
    if (this.pos < this.len && this.buf[this.pos] < 128) return this.buf[this.pos++];
    const { high, low } = int64.call(this);
    const value = high * 2 ** 32 + (low >>> 0);
    return Number.isSafeInteger(value) ? value : (BigInt(high) << 32n) | BigInt(low >>> 0);
  }

  function readSafeInt(this: Reader): number {
    const at = this.pos;
    const value = readInt64.call(this);
    if (typeof value === 'number') return value;
    throw modelError('the model has a dimension or version of an impossible size', {
      where: `byte ${at}`,
      got: String(value),
      hint: 'Export the model again; the file is damaged.',
    });
  }

  function readPacked(this: Reader, pieces: Uint8Array[]): void {
    pieces.push(this.bytes());
  }

  Object.assign(ModelReader.prototype, {
    int64: readInt64,
    uint64: readSafeInt,
    string: stringVerify,
    sfixed32s: readPacked,
    sfixed64s: readPacked,
    sint64s: readPacked,
    sfixed32: unpackedRun((reader) => reader.skip(4)),
    sfixed64: unpackedRun((reader) => reader.skip(8)),
    sint64: unpackedRun((reader) => reader.skip()),
  });
  return ModelReader;
}

/**
 * Reads elements of a packed field that the file has not packed (legal, if rare): all that follow
 * directly under the same tag, as one piece without the tags.
 */
function unpackedRun(skipElement: (reader: Reader) => void) {
  return function (this: Reader): Uint8Array {
    const { buf, pos: start } = this;
    const tag = buf[start - 1]; // all such fields have tags of one byte
    const another = () => tag !== 0 && this.pos < this.len && buf[this.pos] === tag;

    skipElement(this);
    while (another()) {
      this.pos++;
      skipElement(this);
    }
    const piece = new Uint8Array(this.pos - start);
    let length = 0;
    for (this.pos = start; ; this.pos++) {
      const from = this.pos;
      skipElement(this);
      for (let i = from; i < this.pos; i++) piece[length++] = buf[i];
      if (!another()) return piece.subarray(0, length);
    }
  };
}
