import { int, ints, makeNode } from '../../../graph/build.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';
import type { Workspace } from '../../../graph/workspace.js';
import { dtypeCode, type NodeProto, type TensorProto } from '../../../onnx/index.js';
import type { CodedLayer, StoredCodes } from './layers.js';
import { codeTable, narrowest, type Packing, packCodes, packingOf, trits } from './pack.js';

type Weight = Pick<CodedLayer, 'codes' | 'bits'>;

/** A weight in the model. */
export interface UnpackedWeight {
  /** What computes it; nothing where an equal weight was stored before. */
  nodes: NodeProto[];
  values: NonNullable<StoredCodes['values']>;
  bytes: number;
}

interface Known extends UnpackedWeight {
  kind: 'float' | 'int8';
  packed: Uint8Array;
  scales: Float32Array;
}

/**
 * Stores codes five to a byte (four where -2 is among them, two of 4 bits), behind nodes that unpack them
 * by a table; those of 8 bits as they are. They depend on nothing but constants: runtimes compute them once, at load. Equal weights
 * of one tensor are stored once.
 */
export class PackedStore {
  readonly #known = new Map<TensorProto, Known[]>();
  readonly #tables = new Map<Packing, string>();
  readonly #shapes = new Map<string, string>();

  constructor(readonly workspace: Workspace) {}

  /**
   * Scales times codes as floats. Of a MatMul in the shape that it reads; else with output channels in
   * front, as a Conv reads them, and a Gemm with transB.
   */
  floats(layer: WeightLayer, stored: Weight): UnpackedWeight {
    return this.#add('float', layer, stored, (name, unpacked) => {
      const { rows, cols, group, groups, scales } = stored.codes;
      const { workspace } = this;
      // A group's codes share an axis of their own, if all groups are of one size.
      const even = cols % group === 0;
      const chain = new Chain(workspace, name);
      const grouped = unpacked(chain, even ? [rows, groups, group] : [rows, cols]);
      const values = chain.add('Cast', [grouped], [int('to', dtypeCode('float32'))]);
      let factors = workspace.storeFloats(`${name}_scales`, scales, [rows, groups, 1]);
      if (!even) {
        const target = this.#ints([rows, groups, group]);
        factors = chain.add('Expand', [factors, target]);
        factors = chain.add('Reshape', [factors, this.#ints([rows, groups * group])]);
        factors = chain.add('Slice', [factors, ...[[0], [cols], [1]].map((v) => this.#ints(v))]);
      }
      let weight = chain.add('Mul', [values, factors]);
      const shape = layer.op === 'Conv' ? layer.shape : [rows, cols];
      if (even || layer.op === 'Conv') weight = chain.add('Reshape', [weight, this.#ints(shape)]);
      if (layer.op === 'MatMul') weight = chain.add('Transpose', [weight], [ints('perm', [1, 0])]);
      return { nodes: chain.nodes, weight };
    });
  }

  /** Codes as int8, [inputs, outputs]. The scales are stored by whoever multiplies with them. */
  integers(layer: WeightLayer, stored: Weight): UnpackedWeight {
    const { codes } = stored;
    return this.#add('int8', layer, stored, (name, unpacked) => {
      const chain = new Chain(this.workspace, name);
      const rows = unpacked(chain, [codes.rows, codes.cols]);
      const weight = chain.add('Transpose', [rows], [ints('perm', [1, 0])]);
      return { nodes: chain.nodes, weight };
    });
  }

  #add(
    kind: Known['kind'],
    { weight }: WeightLayer,
    { codes: { rows, cols, codes, scales }, bits = 2 }: Weight,
    build: (
      name: string,
      unpacked: (chain: Chain, shape: readonly number[]) => string,
    ) => { nodes: NodeProto[]; weight: string },
  ): UnpackedWeight {
    const { tensor, source } = weight.view;
    const packing = bits === 2 && !codes.includes(-2) ? trits : packingOf[bits];
    const packed = packCodes(codes, { rows: 1, cols: rows * cols }, packing);
    const known = this.#known.get(tensor) ?? [];
    this.#known.set(tensor, known);
    const equal = known.find(
      (k) =>
        k.kind === kind &&
        sameNumbers(k.packed, packed) &&
        (kind === 'int8' || sameNumbers(k.scales, scales)),
    );
    if (equal) return { ...equal, nodes: [], bytes: 0 };

    const { stored, unpacked } = this.#unpacking(tensor.name || source.name, packed, {
      packing,
      count: rows * cols,
    });
    const { nodes, weight: value } = build(tensor.name || source.name, unpacked);
    const made = {
      kind,
      packed,
      scales,
      nodes,
      values: { codes: stored, weight: value },
      bytes: packed.length + 4 * scales.length,
    };
    known.push(made);
    return made;
  }

  /** Codes as int8 in a shape of their own, packed as narrowly as they allow. */
  tensor(name: string, codes: Int8Array, shape: readonly number[]): UnpackedWeight {
    const packing = narrowest(codes);
    const count = codes.length;
    const packed = packCodes(codes, { rows: 1, cols: count }, packing);
    const { stored, unpacked } = this.#unpacking(name, packed, { packing, count });
    const chain = new Chain(this.workspace, name);
    const weight = unpacked(chain, shape);
    return { nodes: chain.nodes, values: { codes: stored, weight }, bytes: packed.length };
  }

  /** Stores packed codes; the nodes that unpack them are added to a chain. */
  #unpacking(
    name: string,
    packed: Uint8Array,
    { packing, count }: { packing: Packing; count: number },
  ): { stored: string; unpacked: (chain: Chain, shape: readonly number[]) => string } {
    const isPacked = packing.perByte > 1;
    const bytes = isPacked ? packed : packed.map((byte) => byte + packing.low);
    const dtype = isPacked ? 'uint8' : 'int8';
    const stored = this.workspace.store(`${name}_codes`, dtype, [bytes.length], bytes);
    const unpacked = (chain: Chain, shape: readonly number[]) => {
      if (!isPacked) return chain.add('Reshape', [stored, this.#ints(shape)]);
      const index = chain.add('Cast', [stored], [int('to', dtypeCode('int32'))]);
      let flat = chain.add('Gather', [this.#table(packing), index]);
      if (packed.length * packing.perByte !== count) {
        flat = chain.add('Reshape', [flat, this.#ints([-1])]);
        flat = chain.add('Slice', [flat, this.#ints([0]), this.#ints([count])]);
      }
      return chain.add('Reshape', [flat, this.#ints(shape)]);
    };
    return { stored, unpacked };
  }

  #table(packing: Packing): string {
    let name = this.#tables.get(packing);
    if (name) return name;
    const table = codeTable(packing);
    const shape = [table.length / packing.perByte, packing.perByte];
    name = this.workspace.store('ternary_table', 'int8', shape, new Uint8Array(table.buffer));
    this.#tables.set(packing, name);
    return name;
  }

  #ints(values: readonly number[]): string {
    const key = values.join();
    let name = this.#shapes.get(key);
    if (name) return name;
    const bytes = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    name = this.workspace.store('ternary_shape', 'int64', [values.length], bytes);
    this.#shapes.set(key, name);
    return name;
  }
}

/** Nodes one behind the other. */
class Chain {
  readonly nodes: NodeProto[] = [];

  constructor(
    readonly workspace: Workspace,
    readonly name: string,
  ) {}

  /** Returns the name of what the node puts out. */
  add(opType: string, input: string[], attribute: NodeProto['attribute'] = []): string {
    const output = this.workspace.names.fresh(`${this.name}_${opType.toLowerCase()}`);
    this.nodes.push(makeNode(opType, input, output, attribute));
    return output;
  }
}

export const sameNumbers = (a: Uint8Array | Float32Array, b: Uint8Array | Float32Array): boolean =>
  Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(
    Buffer.from(b.buffer, b.byteOffset, b.byteLength),
  );
