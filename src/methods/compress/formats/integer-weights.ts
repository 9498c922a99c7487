import { modelError, usageError } from '../../../errors.js';
import { int, makeNode } from '../../../graph/build.js';
import type { WeightLayer } from '../../../graph/weight-layers.js';
import { readMatrix } from '../../../graph/weight-matrix.js';
import type { Workspace } from '../../../graph/workspace.js';
import {
  dtypeByteLength,
  encodeFloat32,
  type Model,
  type NodeProto,
  type TensorProto,
} from '../../../onnx/index.js';
import { leastSquaresScales, maxScales, type Quantized, quantize } from '../maths/quantize.js';
import type { StoredLayer, WeightFormat } from './layers.js';

/** The smallest float32 that no arithmetic unit flushes to zero. */
export const smallestScale = 2 ** -126;

/**
 * The codes of a layer's weight, [rows, cols] of `layer.weight`, and its scales: float32 values, one
 * for each row or a single one.
 * @param least a lower bound of each row's scale
 * @throws {ResectError} exit 5 when a weight is not finite, 2 for bits out of range
 */
export async function quantizeLayer(
  model: Model,
  { name, weight }: WeightLayer,
  { bits, granularity = 'channel', scales = 'max' }: WeightFormat,
  { most = 8, least }: { most?: number; least?: Float64Array } = {},
): Promise<Quantized> {
  if (!Number.isInteger(bits) || bits < 2 || bits > most)
    throw usageError('Weights cannot be stored in so many bits.', {
      where: `layer ${name}`,
      expected: `2 to ${most} bits`,
      got: `${bits}`,
    });
  const values = Float64Array.from(await readMatrix(model, weight));
  if (!values.every(Number.isFinite))
    throw modelError('A weight is not a finite number.', {
      where: `layer ${name}`,
      hint: 'Leave the layer out, or repair the model.',
    });
  const runs = granularity === 'channel' ? weight.rows : 1;
  const wanted =
    scales === 'max'
      ? maxScales(values, runs, bits)
      : scales === 'least-squares'
        ? leastSquaresScales(values, runs, bits)
        : scales;
  if (wanted.length !== 1 && wanted.length !== weight.rows)
    throw new Error(`${wanted.length} scales for ${weight.rows} channels of ${name}`);
  const lowest = (i: number) => {
    if (!least) return smallestScale;
    const bound = wanted.length === 1 ? least.reduce((a, b) => Math.max(a, b), 0) : least[i];
    return Math.max(bound, smallestScale);
  };
  const stored = wanted.map((scale, i) => Math.fround(Math.max(scale, lowest(i))));
  return quantize(values, stored, bits);
}

/** A weight as integers in the model. */
export interface IntegerWeight {
  quantized: Quantized;
  /** The value that has it as floats again. */
  output: string;
  /** What puts that value out; absent when an equal weight was stored before. */
  node?: NodeProto;
  report: Pick<StoredLayer, 'bits' | 'dtype' | 'bytes'>;
}

/** Stores weights as integers in front of a DequantizeLinear; equal ones of one tensor once. */
export class IntegerStore {
  readonly #known = new Map<TensorProto, (IntegerWeight & { axis: number })[]>();

  constructor(readonly workspace: Workspace) {}

  /** @param dtype int8, or int4 for codes of up to 4 bits */
  add(
    layer: WeightLayer,
    quantized: Quantized,
    { bits, dtype }: { bits: number; dtype: 'int8' | 'int4' },
  ): IntegerWeight {
    const { weight, axis, shape } = layer;
    const { tensor, source } = weight.view;
    const known = this.#known.get(tensor) ?? [];
    this.#known.set(tensor, known);
    const equal = known.find(
      (k) =>
        k.axis === axis &&
        k.report.bits === bits &&
        sameNumbers(k.quantized.scales, quantized.scales),
    );
    if (equal) return { ...equal, node: undefined };
    const { codes, scales } = quantized;
    const name = tensor.name || source.name;
    const ordered = toShape(codes, shape, axis);
    const bytes =
      dtype === 'int8'
        ? new Uint8Array(ordered.buffer)
        : encodeFloat32(Float32Array.from(ordered), dtype);
    const perTensor = scales.length === 1;
    const scaleShape = perTensor ? [] : [scales.length];
    // It could be left out, but then ONNX Runtime would not fuse a Gemm that puts out floats.
    const zeroPoint = new Uint8Array(dtypeByteLength(dtype, scales.length));
    const inputs = [
      this.workspace.store(`${name}_quantized`, dtype, shape, bytes),
      this.workspace.storeFloats(`${name}_scale`, Float32Array.from(scales), scaleShape),
      this.workspace.store(`${name}_zero_point`, dtype, scaleShape, zeroPoint),
    ];
    const output = this.workspace.names.fresh(`${name}_dequantized`);
    const node = dequantizeNode(inputs, output, perTensor ? undefined : axis);
    const report = {
      bits,
      dtype,
      bytes: bytes.length + 4 * scales.length + zeroPoint.length,
    };
    const made = { quantized, output, node, report, axis };
    known.push(made);
    return made;
  }
}

/** Codes with `axis` of `shape` in front, in the order of `shape`. */
function toShape(codes: Int16Array, shape: readonly number[], axis: number): Int8Array {
  const product = (sizes: readonly number[]) => sizes.reduce((a, b) => a * b, 1);
  const [outer, rows, inner] = [
    product(shape.slice(0, axis)),
    shape[axis],
    product(shape.slice(axis + 1)),
  ];
  const ordered = new Int8Array(codes.length);
  for (let r = 0, k = 0; r < rows; r++)
    for (let o = 0; o < outer; o++)
      for (let i = 0; i < inner; i++, k++) ordered[(o * rows + r) * inner + i] = codes[k];
  return ordered;
}

const sameNumbers = (a: Float64Array, b: Float64Array): boolean =>
  a.length === b.length && a.every((x, i) => x === b[i]);

/** `x` as integers read back: a node, per channel when `axis` is given. */
export const dequantizeNode = (
  [codes, scale, zeroPoint]: readonly string[],
  output: string,
  axis?: number,
): NodeProto =>
  makeNode(
    'DequantizeLinear',
    zeroPoint ? [codes, scale, zeroPoint] : [codes, scale],
    output,
    axis === undefined ? [] : [int('axis', axis)],
  );
