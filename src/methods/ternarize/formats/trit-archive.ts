import { int, makeNode } from '../../../graph/build.js';
import type { Workspace } from '../../../graph/workspace.js';
import { dtypeCode, type NodeProto } from '../../../onnx/index.js';
import type { StoredCodes } from './layers.js';
import { codeTable, trits, twoBits } from './pack.js';

/** What four codes of two bits are worth in a byte. */
const places = [1, 4, 16, 64];

/**
 * Ternary codes, five to a byte, that nodes turn into blocks of MatMulNBits. They depend on nothing but
 * constants: a runtime computes them once, at load. Sums are of floats, exact up to 255.
 */
export class TritArchive {
  #table: string | undefined;
  #places: string | undefined;

  constructor(readonly workspace: Workspace) {}

  /**
   * @param packed rows of whole blocks, as `packCodes` packs trits: rows are padded to whole bytes
   * @param blocks shape of the weight of MatMulNBits, [rows, blocks, bytes]
   */
  add(
    name: string,
    packed: Uint8Array,
    [rows, perRow, blockBytes]: readonly number[],
  ): { nodes: NodeProto[]; values: NonNullable<StoredCodes['values']> } {
    const { workspace } = this;
    const nodes: NodeProto[] = [];
    const add = (...[opType, input, attribute]: [string, string[], NodeProto['attribute']?]) => {
      const output = workspace.names.fresh(`${name}_${opType.toLowerCase()}`);
      nodes.push(makeNode(opType, input, output, attribute ?? []));
      return output;
    };
    const ints = (values: readonly number[]) =>
      workspace.store(
        'ternary_shape',
        'int64',
        [values.length],
        new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
      );
    // Bytes in the file, floats from the first weight on.
    this.#table ??= add('Cast', [this.#storeTable()], [int('to', dtypeCode('float32'))]);
    this.#places ??= workspace.storeFloats('ternary_places', Float32Array.from(places), [4, 1]);
    const codes = workspace.store(`${name}_codes`, 'uint8', [packed.length], packed);
    const index = add('Cast', [codes], [int('to', dtypeCode('int32'))]);
    const digits = add('Gather', [this.#table, index]);
    const width = perRow * blockBytes * places.length;
    const stored = (packed.length / rows) * trits.perByte;
    let flat = add('Reshape', [digits, ints([rows, stored])]);
    if (stored > width)
      flat = add('Slice', [flat, ...[[0], [width], [1]].map((values) => ints(values))]);
    const fours = add('Reshape', [flat, ints([-1, places.length])]);
    const sums = add('MatMul', [fours, this.#places]);
    const bytes = add('Cast', [sums], [int('to', dtypeCode('uint8'))]);
    const weight = add('Reshape', [bytes, ints([rows, perRow, blockBytes])]);
    return { nodes, values: { codes, weight } };
  }

  /** [243, 5] the digit of two bits for each code of a byte. */
  #storeTable(): string {
    const digits = Uint8Array.from(codeTable(trits), (code) => code - twoBits.low);
    const shape = [digits.length / trits.perByte, trits.perByte];
    return this.workspace.store('ternary_digits', 'uint8', shape, digits);
  }
}
