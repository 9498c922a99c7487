import { float, int } from '../../graph/build.js';
import { floatAttribute, intAttribute, intsAttribute } from '../../graph/nodes.js';
import type { Expansion, RewriteRule } from './rewrite.js';

/** Normalisations but LayerNormalization, BatchNormalization and InstanceNormalization, which have gradients. */
export const norms: Record<string, RewriteRule> = {
  RMSNormalization: (x) =>
    rmsNorm(x, x.input(0), x.input(1), intAttribute(x.node, 'axis', -1), 1e-5, 1),
  // Written by ONNX Runtime into the default domain.
  SimplifiedLayerNormalization: (x) =>
    rmsNorm(x, x.input(0), x.input(1), intAttribute(x.node, 'axis', -1), 1e-5, 1),
  'com.microsoft.SkipLayerNormalization': (x) => {
    const sum = skipSum(x, x.input(4));
    const [scale, bias] = [x.input(2), x.input(3)];
    const attributes = [
      int('axis', -1),
      float('epsilon', floatAttribute(x.node, 'epsilon', 1e-12)),
    ];
    const outputs = [x.output(), ...[1, 2].map((i) => (x.isRead(i) ? x.output(i) : ''))];
    x.add(
      'LayerNormalization',
      bias ? [sum, scale, bias] : [sum, scale],
      attributes,
      trimmed(outputs),
    );
  },
  'com.microsoft.SkipSimplifiedLayerNormalization': (x) =>
    rmsNorm(x, skipSum(x, x.input(3)), x.input(2), -1, 1e-12, 2),
  'com.microsoft.EmbedLayerNormalization': embedLayerNorm,
  GroupNormalization: groupNorm,
  MeanVarianceNormalization: meanVarianceNorm,
};

/** More axes than any tensor has. */
const maxRank = 64;

/** More groups than any network has: their number is the length of a vector that is made. */
const maxGroups = 2 ** 20;

const trimmed = (outputs: string[]): string[] =>
  outputs.slice(0, outputs.findLastIndex(Boolean) + 1);

/** input + skip (+ bias), also the fourth output of the op. */
function skipSum(x: Expansion, bias: string): string {
  const final = x.isRead(3) ? [x.output(3)] : [];
  const [input, skip] = [x.input(0), x.input(1)];
  if (!bias) return x.add('Add', [input, skip], [], ...final);
  return x.add('Add', [x.add('Add', [input, skip]), bias], [], ...final);
}

/**
 * v / √(mean(v²) + epsilon) · scale, over the axes from `axis` on.
 * @param inverse the output that holds 1 / √(…)
 */
function rmsNorm(
  x: Expansion,
  v: string,
  scale: string,
  axis: number,
  defaultEpsilon: number,
  inverse: number,
): void {
  const first = axis < 0 ? axis : axis - (x.rank(v) ?? 0);
  if (first >= 0)
    x.refuse('the rank of its input is not known', 'Run ONNX shape inference on the model first.');
  if (first < -maxRank) x.refuse(`its axis is ${axis}`, 'Correct the model.');
  const axes = Array.from({ length: -first }, (_, i) => first + i);
  const epsilon = x.float(floatAttribute(x.node, 'epsilon', defaultEpsilon), v);
  const mean = x.mean(x.add('Mul', [v, v]), axes);
  const root = x.add('Sqrt', [x.add('Add', [mean, epsilon])]);
  const final = x.isRead(inverse) ? [x.output(inverse)] : [];
  const inv = x.add('Reciprocal', [root], [], ...final);
  x.add('Mul', [x.add('Mul', [v, inv]), scale], [], x.output());
}

function embedLayerNorm(x: Expansion): void {
  const [ids, segments, words, places, segmentTable, scale, bias, mask, positions] = Array.from(
    { length: 9 },
    (_, i) => x.input(i),
  );
  const word = x.add('Gather', [words, ids]);
  const sequence = () => x.length(ids, 1);
  const start = x.int64([0]);
  const place = positions
    ? x.add('Gather', [places, positions])
    : x.add('Slice', [places, start, sequence(), start]);
  let sum = x.add('Add', [word, place]);
  if (segments) sum = x.add('Add', [sum, x.add('Gather', [segmentTable, segments])]);
  const attributes = [int('axis', -1), float('epsilon', floatAttribute(x.node, 'epsilon', 1e-12))];
  x.add('LayerNormalization', [sum, scale, bias], attributes, x.output());
  if (x.isRead(2)) x.add('Identity', [sum], [], x.output(2));
  if (!x.isRead(1)) return;
  if (!mask)
    x.refuse(
      'its mask index is used, but it has no mask',
      'Export the model with an attention mask.',
    );
  x.add('ReduceSum', [mask, x.int64([1])], [int('keepdims', 0)], x.output(1));
}

/** Groups as the channels of an InstanceNormalization. */
function groupNorm(x: Expansion): void {
  const groups = intAttribute(x.node, 'num_groups', 1);
  if (!(groups >= 1 && groups <= maxGroups))
    x.refuse(`its number of groups is ${groups}`, 'Correct the model.');
  const [input, scale, bias] = [x.input(0), x.input(1), x.input(2)];
  const epsilon = [float('epsilon', floatAttribute(x.node, 'epsilon', 1e-5))];
  const shape = x.add('Shape', [input]);
  const grouped = x.add('Reshape', [input, x.int64([0, groups, -1])]);
  if (x.opset < 21) {
    // One scale and bias for each group.
    const normal = x.add('InstanceNormalization', [grouped, scale, bias], epsilon);
    x.add('Reshape', [normal, shape], [], x.output());
    return;
  }
  const dtype = x.dtype(input) === 'float64' ? 'float64' : 'float32';
  const vector = (value: number) =>
    x.floats(new Array<number>(groups).fill(value), [groups], dtype);
  const normal = x.add('InstanceNormalization', [grouped, vector(1), vector(0)], epsilon);
  // [N, C, rest], so that [C, 1] broadcasts whatever the rank.
  const channels = x.add(
    'Concat',
    [x.int64([0]), x.add('Shape', [scale]), x.int64([-1])],
    [int('axis', 0)],
  );
  const flat = x.add('Reshape', [normal, channels]);
  const column = (v: string) => x.add('Unsqueeze', [v, x.int64([1])]);
  const scaled = x.add('Mul', [flat, column(scale)]);
  const shifted = x.add('Add', [scaled, column(bias)]);
  x.add('Reshape', [shifted, shape], [], x.output());
}

/** (v - mean) / (√(mean(v²) - mean²) + 1e-9), as the standard defines it. */
function meanVarianceNorm(x: Expansion): void {
  const axes = intsAttribute(x.node, 'axes') ?? [0, 2, 3];
  const v = x.input(0);
  const mean = x.mean(v, axes);
  const squares = x.mean(x.add('Mul', [v, v]), axes);
  const variance = x.add('Sub', [squares, x.add('Mul', [mean, mean])]);
  const deviation = x.add('Add', [x.add('Sqrt', [variance]), x.float(1e-9, v)]);
  x.add('Div', [x.add('Sub', [v, mean]), deviation], [], x.output());
}
