import type { Writer } from 'protobufjs/light.js';
import type { Protobuf } from './codec.js';
import type { TensorProto } from './schema.js';

/** Bytes of known length that are produced only while they are written. */
export interface DeferredBytes {
  readonly length: number;
  /** Yields `length` bytes in all. A block is valid until the next one is asked for. */
  blocks(): AsyncIterable<Uint8Array>;
}

export type Piece = Uint8Array | DeferredBytes;

/** What to write in place of a tensor. */
export type WritableTensor = (
  tensor: TensorProto,
) => TensorProto | (Omit<TensorProto, 'rawData'> & { rawData: DeferredBytes });

/** Byte fields from this length on are passed on by reference. */
const BY_REFERENCE = 16 * 1024;

/** A large byte field, left out of the writer's buffer. */
interface Gap {
  /** Where in the buffer it belongs. */
  at: number;
  piece: Piece;
}

export interface PieceWriter extends Writer {
  readonly writable: WritableTensor;
  pieces(): Piece[];
}

/**
 * A protobufjs writer that collects pieces: everything small in one buffer, large byte fields by
 * reference, so that writing a model does not copy its weights.
 */
export function writerClass(pb: Protobuf): new (writable: WritableTensor) => PieceWriter {
  class PieceCollector extends pb.Writer implements PieceWriter {
    readonly #gaps: Gap[] = [];
    #gapBytes = 0;
    readonly #forks: { pos: number; gaps: number; gapBytes: number }[] = [];

    constructor(readonly writable: WritableTensor) {
      super();
    }

    override bytes(value: Piece | string): this {
      if (typeof value === 'string') throw new Error('bytes must not be given as a string');
      if (value instanceof Uint8Array && value.length < BY_REFERENCE) {
        super.bytes(value);
        return this;
      }
      this.uint32(value.length);
      return this.#leaveOut(value);
    }

    override raw(value: Uint8Array): this {
      if (value.length >= BY_REFERENCE) return this.#leaveOut(value);
      super.raw(value);
      return this;
    }

    #leaveOut(piece: Piece): this {
      this.#gaps.push({ at: this.pos, piece });
      this.#gapBytes += piece.length;
      return this;
    }

    override fork(): this {
      this.#forks.push({ pos: this.pos, gaps: this.#gaps.length, gapBytes: this.#gapBytes });
      return this;
    }

    /** Puts the length of all that was written since the fork, gaps included, in front of it. */
    override ldelim(): this {
      const fork = this.#forks.pop();
      if (!fork) throw new Error('ldelim without fork');
      const end = this.pos;
      this.uint32(end - fork.pos + this.#gapBytes - fork.gapBytes);
      const prefix = new Uint8Array(this.buf.subarray(end, this.pos));
      this.buf.copyWithin(fork.pos + prefix.length, fork.pos, end);
      this.buf.set(prefix, fork.pos);
      for (let i = fork.gaps; i < this.#gaps.length; i++) this.#gaps[i].at += prefix.length;
      return this;
    }

    override int64(value: Parameters<Writer['int64']>[0] | bigint): this {
      if (typeof value === 'number' && !Number.isSafeInteger(value))
        throw new Error(`${value} is not a safe integer; use a bigint`);
      super.int64(typeof value === 'bigint' ? BigInt.asIntN(64, value).toString() : value);
      return this;
    }

    override uint64(value: Parameters<Writer['uint64']>[0]): this {
      return this.int64(value);
    }

    pieces(): Piece[] {
      const pieces: Piece[] = [];
      let from = 0;
      for (const { at, piece } of this.#gaps) {
        if (at > from) pieces.push(this.buf.subarray(from, at));
        pieces.push(piece);
        from = at;
      }
      if (this.pos > from) pieces.push(this.buf.subarray(from, this.pos));
      return pieces;
    }
  }

  function writePacked(this: PieceWriter, pieces: Uint8Array[]): PieceWriter {
    this.uint32(pieces.reduce((total, piece) => total + piece.length, 0));
    for (const piece of pieces) this.raw(piece);
    return this;
  }
  Object.assign(PieceCollector.prototype, {
    sfixed32s: writePacked,
    sfixed64s: writePacked,
    sint64s: writePacked,
  });
  return PieceCollector;
}
