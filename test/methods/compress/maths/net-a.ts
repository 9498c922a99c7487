import { readFileSync } from 'node:fs';
import { parseNpyHeader } from '../../../../src/data/npy.js';
import { type BatchNorm, outputAffine } from '../../../../src/methods/compress/maths/batch-norm.js';
import {
  type ChannelView,
  eliminate,
  importance,
} from '../../../../src/methods/compress/maths/elimination.js';
import type { Filters } from '../../../../src/methods/compress/maths/gaussian-conv.js';
import { tapCorrelation } from '../../../../src/methods/compress/maths/gaussian-conv.js';
import { relu } from '../../../../src/methods/compress/maths/gaussian-relu.js';
import {
  compressedStep,
  gaussianStep,
} from '../../../../src/methods/compress/maths/gaussian-step.js';
import { gptq } from '../../../../src/methods/compress/maths/gptq.js';
import { dropMatrix, mixAxis, range } from '../../../../src/methods/compress/maths/mixing.js';
import { type Signal, standardInput } from '../../../../src/methods/compress/maths/moments.js';
import { dequantize, leastSquaresScales } from '../../../../src/methods/compress/maths/quantize.js';
import { outputShift, reconstruct } from '../../../../src/methods/compress/maths/reconstruct.js';
import { highest, keptCount, l1Norms } from '../../../../src/methods/compress/maths/select.js';
import { udfcMixing } from '../../../../src/methods/compress/maths/udfc.js';
import {
  encodeFloat32,
  encodeModel,
  makeTensor,
  readModel,
  readTensorFloat32,
} from '../../../../src/onnx/index.js';
import { withSession } from '../../../../src/runtime/session.js';

const folder = new URL('../../../../fixtures/golden/udfc/', import.meta.url);

/** Values by tensor name, and the shapes that differ from the file's. */
export type Tensors = Map<string, { dims: number[]; values: Float64Array }>;

export async function readTensors(file: string): Promise<Tensors> {
  const model = await readModel(new URL(file, folder).pathname);
  const tensors: Tensors = new Map();
  for (const tensor of model.proto.graph?.initializer ?? []) {
    const values = Float64Array.from(await readTensorFloat32(model, tensor));
    tensors.set(tensor.name!, { dims: tensor.dims!.map(Number), values });
  }
  return tensors;
}

const CONVS = ['conv1', 'conv2', 'conv3', 'conv4', 'convA', 'convB'] as const;
type ConvName = (typeof CONVS)[number];
const PRUNABLE: readonly string[] = ['conv1', 'conv2', 'conv3', 'convA'];

function convolution(tensors: Tensors, name: ConvName) {
  const { dims, values } = tensors.get(`${name}.weight`)!;
  const [outputs, inputs, ...kernel] = dims;
  const filters: Filters = { weights: values, outputs, inputs, kernel, groups: 1 };
  const part = (suffix: string) => tensors.get(`bn${name.slice(4)}.${suffix}`)!.values;
  const norm: BatchNorm = {
    gamma: part('weight'),
    beta: part('bias'),
    mean: part('running_mean'),
    variance: part('running_var'),
    epsilon: 1e-5,
  };
  return { filters, norm };
}

function rowsOf(values: Float64Array, width: number, rows: Uint32Array): Float64Array {
  const out = new Float64Array(rows.length * width);
  rows.forEach((row, m) => {
    out.set(values.subarray(row * width, (row + 1) * width), m * width);
  });
  return out;
}

function putConvolution(
  out: Tensors,
  name: ConvName,
  weight: { dims: number[]; values: Float64Array },
  { gamma, beta, mean, variance }: BatchNorm,
): void {
  out.set(`${name}.weight`, weight);
  const parts = { weight: gamma, bias: beta, running_mean: mean, running_var: variance };
  for (const [suffix, values] of Object.entries(parts)) {
    out.set(`bn${name.slice(4)}.${suffix}`, { dims: [values.length], values });
  }
}

/** Channels of the highest L1 norm, and what UDFC makes of the rest, or nothing. */
export function pruneByNorm(tensors: Tensors, ratio: number, repair: boolean) {
  const out: Tensors = new Map(tensors);
  const kept = new Map<string, Uint32Array>();
  let rewritten = tensors.get('conv1.weight')!.values;
  CONVS.forEach((name, index) => {
    const { filters, norm } = convolution(tensors, name);
    const { outputs, kernel, weights } = filters;
    const width = weights.length / outputs;
    const keep = PRUNABLE.includes(name)
      ? highest(l1Norms(weights, outputs, width), keptCount(outputs, { ratio }))
      : range(outputs);
    if (PRUNABLE.includes(name)) kept.set(name, keep);
    const inner = kernel.reduce((a, b) => a * b, 1);
    const rows = rowsOf(rewritten, rewritten.length / outputs, keep);
    const dims = [keep.length, rows.length / keep.length / inner, ...kernel];
    const pick = (values: Float64Array) => Float64Array.from(keep, (channel) => values[channel]);
    putConvolution(
      out,
      name,
      { dims, values: rows },
      {
        gamma: pick(norm.gamma),
        beta: pick(norm.beta),
        mean: pick(norm.mean),
        variance: pick(norm.variance),
        epsilon: norm.epsilon,
      },
    );
    const next = CONVS[index + 1] && convolution(tensors, CONVS[index + 1]).filters;
    if (!next) return;
    const view = { outer: next.outputs, channels: outputs, inner };
    const s = repair
      ? udfcMixing({ filters: weights, affine: outputAffine(outputs, norm), kept: keep }).s
      : dropMatrix(keep, outputs);
    rewritten = mixAxis(next.weights, view, s, keep.length);
  });
  return { tensors: out, kept };
}

interface Compression {
  ratio: number;
  bits?: number;
  refit?: boolean;
}

/** Data-free compression of the network of `tensors`, layer by layer, as its goldens were made. */
export function compressNetA(tensors: Tensors, { ratio, bits, refit }: Compression) {
  const out: Tensors = new Map(tensors);
  const kept = new Map<string, Uint32Array>();
  let input: Signal = { original: standardInput(1) };
  // What the convolution's input axis has become, and what its output lost on average.
  let rewritten = tensors.get('conv1.weight')!.values;
  let shift: Float64Array | undefined;
  CONVS.forEach((name, index) => {
    const layer = convolution(tensors, name);
    const { outputs, kernel } = layer.filters;
    const step = gaussianStep(input.original, layer);
    const after = relu.moments(step.preActivation);
    const next = CONVS[index + 1] && convolution(tensors, CONVS[index + 1]);
    const inner = next?.filters.kernel.reduce((a, b) => a * b, 1);
    const view = next && { outer: next.filters.outputs, channels: outputs, inner };

    let keep = range(outputs);
    if (PRUNABLE.includes(name)) {
      const { scale: a } = outputAffine(next.filters.outputs, next.norm);
      const seen: ChannelView = {
        covariance: after.covariance,
        importance: importance(next.filters.weights, view, a),
      };
      keep = eliminate(outputs, [seen], { keep: keptCount(outputs, { ratio }) })!.kept;
      kept.set(name, keep);
    }
    const inputs = input.compressed?.mean.length ?? input.original.mean.length;
    const width = rewritten.length / outputs;
    let weights = rewritten;
    if (bits) {
      const hessian = {
        channels: (input.compressed ?? input.original).covariance,
        taps: tapCorrelation(layer.filters, step.r),
      };
      const scales = leastSquaresScales(weights, outputs, bits);
      weights = dequantize(gptq(weights, hessian, { bits, scales, tapDamping: 0.01 })!);
    }
    const rows = rowsOf(weights, width, keep);
    const compressed = compressedStep(
      input,
      layer,
      step,
      {
        filters: { weights: rows, outputs: keep.length, inputs, kernel, groups: 1 },
        kept: keep,
        shift: shift && Float64Array.from(keep, (channel) => shift![channel]),
      },
      refit,
    );
    const weight = { dims: [keep.length, inputs, ...kernel], values: rows };
    putConvolution(out, name, weight, compressed.norm!);
    const before = { original: step.preActivation, compressed: compressed.preActivation };
    input = { original: after, compressed: relu.compressed(before) };
    if (!next) return;
    if (PRUNABLE.includes(name)) {
      const { s, delta } = reconstruct(after, keep, input.compressed);
      rewritten = mixAxis(next.filters.weights, view, s, keep.length);
      shift = outputShift(next.filters.weights, view, delta);
    } else {
      rewritten = next.filters.weights;
      shift = undefined;
    }
  });
  return { tensors: out, kept };
}

/** The network's logits on the golden's 8 images, with `tensors` in place of its own. */
export async function logitsOf(tensors: Tensors): Promise<Float32Array> {
  const { proto } = await readModel(new URL('netA.onnx', folder).pathname);
  // Shapes of the channels that were removed.
  proto.graph!.valueInfo = [];
  const bytes = encodeModel(proto, (tensor) => {
    const replacement = tensors.get(tensor.name!)!;
    const values = Float32Array.from(replacement.values);
    return makeTensor({
      name: tensor.name!,
      dtype: 'float32',
      shape: replacement.dims,
      bytes: encodeFloat32(values, 'float32'),
    });
  });
  const input = readFloat32('netA.input8.npy');
  const outputs = await withSession(bytes, { threads: 1 }, (session) =>
    session.run({ input: { dtype: 'float32', ...input } }),
  );
  const { data } = outputs.logits;
  if (!(data instanceof Float32Array)) throw new Error('logits are not float32');
  return data;
}

export function readFloat32(file: string): { dims: number[]; data: Float32Array } {
  const bytes = readFileSync(new URL(file, folder));
  const { offset, dims } = parseNpyHeader(bytes, file);
  const data = bytes.buffer.slice(bytes.byteOffset + offset, bytes.byteOffset + bytes.length);
  return { dims, data: new Float32Array(data) };
}

/** The golden's kept channels of a variant, by convolution. */
export function goldenKept(variant: string): Map<string, Uint32Array> {
  return new Map(
    PRUNABLE.map((name) => {
      const bytes = readFileSync(new URL(`netA.${variant}.keep.${name}.npy`, folder));
      const { offset, dims } = parseNpyHeader(bytes, variant);
      const channels = Array.from({ length: dims[0] }, (_, m) =>
        Number(bytes.readBigInt64LE(offset + 8 * m)),
      );
      return [name, Uint32Array.from(channels)];
    }),
  );
}
