import { isStandard, opName } from '../../../graph/nodes.js';
import {
  type AttributeProto,
  AttributeType,
  type NodeProto,
  readInlineBytes,
  tensorInfo,
} from '../../../onnx/index.js';

/**
 * What an attribute is when a node does not have it: a value, or whether a given one makes no
 * difference.
 */
type Default = number | string | ((a: AttributeProto) => boolean);

const allAre =
  (value: number) =>
  ({ ints = [] }: AttributeProto): boolean =>
    ints.every((i) => Number(i) === value);
const ones = allAre(1);
const zeros = allAre(0);
const isReversed = ({ ints = [] }: AttributeProto): boolean =>
  ints.every((axis, i) => Number(axis) === ints.length - 1 - i);
const irrelevant = (): boolean => true;
const oneOf =
  (...texts: string[]) =>
  ({ s }: AttributeProto): boolean =>
    texts.includes(utf8(s));
/** Lists of an op that has them once for each direction. */
const cycle =
  (...names: string[]) =>
  ({ strings = [] }: AttributeProto): boolean =>
    strings.every((s, i) => utf8(s) === names[i % names.length]);

const window = { auto_pad: 'NOTSET', dilations: ones, pads: zeros, strides: ones };
const pool = { ...window, ceil_mode: 0 };
/** The weight says it. */
const conv = { ...window, group: 1, kernel_shape: irrelevant };
const norm = { axis: -1, epsilon: 1e-5, stash_type: 1 };
const reduction = { keepdims: 1, noop_with_empty_axes: 0 };
const arg = { axis: 0, keepdims: 1, select_last_index: 0 };
const recurrent = { direction: 'forward', layout: 0 };
const axis0 = { axis: 0 };

/**
 * Defaults of the standard from opset 13 on (https://github.com/onnx/onnx/blob/main/docs/Operators.md).
 * Whatever is not listed has none.
 */
const defaults: Record<string, Record<string, Default>> = {
  ArgMax: arg,
  ArgMin: arg,
  Attention: { is_causal: 0, qk_matmul_output_mode: 0, softcap: 0 },
  AveragePool: { ...pool, count_include_pad: 0 },
  BatchNormalization: { epsilon: 1e-5, momentum: irrelevant, spatial: 1, training_mode: 0 },
  Cast: { saturate: 1, round_mode: 'up' },
  CastLike: { saturate: 1, round_mode: 'up' },
  Celu: { alpha: 1 },
  Conv: conv,
  ConvTranspose: { ...conv, output_padding: zeros },
  CumSum: { exclusive: 0, reverse: 0 },
  DFT: { inverse: 0, onesided: 0 },
  DeformConv: { ...conv, offset_group: 1 },
  DepthToSpace: { mode: 'DCR' },
  Dropout: { ratio: irrelevant, seed: irrelevant },
  Elu: { alpha: 1 },
  EyeLike: { k: 0 },
  Flatten: { axis: 1 },
  Gather: axis0,
  GatherElements: axis0,
  GatherND: { batch_dims: 0 },
  Gelu: { approximate: 'none' },
  Gemm: { alpha: 1, beta: 1, transA: 0, transB: 0 },
  GlobalLpPool: { p: 2 },
  GridSample: {
    align_corners: 0,
    mode: oneOf('linear', 'bilinear'),
    padding_mode: 'zeros',
  },
  GroupNormalization: { epsilon: 1e-5, stash_type: 1 },
  GRU: { ...recurrent, activations: cycle('Sigmoid', 'Tanh'), linear_before_reset: 0 },
  HardSigmoid: { alpha: 0.2, beta: 0.5 },
  InstanceNormalization: { epsilon: 1e-5 },
  IsInf: { detect_negative: 1, detect_positive: 1 },
  LayerNormalization: norm,
  LeakyRelu: { alpha: 0.01 },
  LpNormalization: { axis: -1, p: 2 },
  LpPool: { ...pool, p: 2 },
  LRN: { alpha: 1e-4, beta: 0.75, bias: 1 },
  LSTM: { ...recurrent, activations: cycle('Sigmoid', 'Tanh', 'Tanh'), input_forget: 0 },
  MaxPool: { ...pool, storage_order: 0 },
  MaxUnpool: { pads: zeros, strides: ones },
  MeanVarianceNormalization: { axes: ({ ints }) => ints?.join() === '0,2,3' },
  Mod: { fmod: 0 },
  NonMaxSuppression: { center_point_box: 0 },
  OneHot: { axis: -1 },
  Pad: { mode: 'constant' },
  Reshape: { allowzero: 0 },
  Resize: {
    antialias: 0,
    coordinate_transformation_mode: 'half_pixel',
    cubic_coeff_a: -0.75,
    exclude_outside: 0,
    extrapolation_value: 0,
    keep_aspect_ratio_policy: 'stretch',
    mode: 'nearest',
    nearest_mode: 'round_prefer_floor',
  },
  ReverseSequence: { batch_axis: 1, time_axis: 0 },
  RMSNormalization: norm,
  RNN: { ...recurrent, activations: cycle('Tanh') },
  RoiAlign: {
    coordinate_transformation_mode: 'half_pixel',
    mode: 'avg',
    output_height: 1,
    output_width: 1,
    sampling_ratio: 0,
    spatial_scale: 1,
  },
  RotaryEmbedding: { interleaved: 0, num_heads: 0, rotary_embedding_dim: 0 },
  ScatterElements: { axis: 0, reduction: 'none' },
  ScatterND: { reduction: 'none' },
  Selu: { alpha: 1.6732631921768188, gamma: 1.0507010221481323 },
  Shape: { start: 0 },
  Shrink: { bias: 0, lambd: 0.5 },
  SimplifiedLayerNormalization: norm,
  Split: axis0,
  STFT: { onesided: 1 },
  Swish: { alpha: 1 },
  ThresholdedRelu: { alpha: 1 },
  TopK: { axis: -1, largest: 1, sorted: 1 },
  Transpose: { perm: isReversed },
  Trilu: { upper: 1 },
  Upsample: { mode: 'nearest' },
  'com.microsoft.FusedGemm': { alpha: 1, beta: 1, transA: 0, transB: 0 },
  'com.microsoft.FusedMatMul': { alpha: 1, transA: 0, transB: 0, transBatchA: 0, transBatchB: 0 },
  'com.microsoft.FusedConv': conv,
  'com.microsoft.EmbedLayerNormalization': { epsilon: 1e-12 },
  'com.microsoft.SkipLayerNormalization': { epsilon: 1e-12 },
};

const reductions = 'L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare';
for (const name of reductions.split(' ')) defaults[`Reduce${name}`] = reduction;

/** Until opset 12 the rows of the matrix that an input is flattened to at an axis; then an axis. */
const softmax = /^(Softmax|LogSoftmax|Hardmax)$/;

/**
 * A node's attributes as text, without those that say what would be without them, in order of name.
 * Bodies and tensors are left out.
 * @param opset of the default domain
 */
export function canonicalAttributes(node: NodeProto, opset: number): Map<string, string> {
  const op = opName(node);
  const own: Record<string, Default> =
    isStandard(node) && softmax.test(op)
      ? { axis: opset < 13 ? 1 : -1 }
      : Object.hasOwn(defaults, op)
        ? defaults[op]
        : {};
  const given = node.attribute
    .filter(({ g, graphs, t, tensors }) => !g && !graphs?.length && !t && !tensors?.length)
    .map((a) => [a.name ?? '', a] as const)
    .filter(([name, a]) => !(Object.hasOwn(own, name) && isDefault(a, own[name])))
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return new Map(given.map(([name, a]) => [name, valueText(a)]));
}

/** A node's attributes that are tensors, but for a ConstantOfShape that says to fill with zeros. */
export function tensorAttributes(node: NodeProto): AttributeProto[] {
  return node.attribute.filter(({ t }) => {
    if (!t || opName(node) !== 'ConstantOfShape') return t;
    const isZero = readInlineBytes(t)?.every((byte) => byte === 0);
    return !(tensorInfo(t).dtype === 'float32' && isZero);
  });
}

function isDefault(a: AttributeProto, value: Default): boolean {
  if (typeof value === 'function') return value(a);
  if (typeof value === 'string') return utf8(a.s) === value;
  return Math.fround(Number(a.i ?? a.f ?? 0)) === Math.fround(value);
}

function valueText({
  type,
  f,
  i,
  s,
  floats,
  ints,
  strings,
  tp,
  typeProtos,
}: AttributeProto): string {
  if (f !== undefined) return String(Math.fround(f));
  if (i !== undefined) return String(i);
  if (s !== undefined) return JSON.stringify(utf8(s));
  if (tp ?? typeProtos)
    return JSON.stringify(tp ?? typeProtos, (_, v) => (typeof v === 'bigint' ? String(v) : v));
  const list = floats?.map((v) => String(Math.fround(v))) ?? ints?.map(String);
  if (list) return `[${list.join(', ')}]`;
  if (strings) return JSON.stringify(strings.map(utf8));
  // Zeros and empty texts may be absent from the file.
  if (type === AttributeType.float || type === AttributeType.int) return '0';
  return type === AttributeType.string ? '""' : '[]';
}

const utf8 = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString();
