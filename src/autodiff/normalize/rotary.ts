import { int } from '../../graph/build.js';
import { intAttribute } from '../../graph/nodes.js';
import type { Expansion, RewriteRule } from './rewrite.js';

/** Rotary position embedding of ONNX Runtime and of opset 23. */
export const rotaryEmbeddings: Record<string, RewriteRule> = {
  'com.microsoft.RotaryEmbedding': (x) => {
    if (intAttribute(x.node, 'is_packed_batching', 0) !== 0)
      x.refuse('its examples are packed', 'Export the model without packed batches.');
    const [input, positions, cos, sin] = [0, 1, 2, 3].map((i) => x.input(i));
    if (x.rank(positions) !== 2)
      x.refuse(
        'its positions are not known to be one for each token',
        'Run ONNX shape inference on the model first.',
      );
    rotate(x, input, x.add('Gather', [cos, positions]), x.add('Gather', [sin, positions]), cos);
  },
  RotaryEmbedding: (x) => {
    const [input, cos, sin, positions] = [0, 1, 2, 3].map((i) => x.input(i));
    const at = (table: string) => (positions ? x.add('Gather', [table, positions]) : table);
    rotate(x, input, at(cos), at(sin), cos);
  },
};

/**
 * Turns pairs of features (2i and 2i+1 when interleaved, else i and i + r) by an angle.
 * @param input [B, N, S, D] or [B, S, N·D]; the first 2r features of a head are turned
 * @param cos [B, S, r]
 * @param sin [B, S, r]
 * @param table whose last axis has the length r
 */
function rotate(x: Expansion, input: string, cos: string, sin: string, table: string): void {
  const rank = x.rank(input);
  const half = x.dims(table)?.at(-1);
  if (rank === undefined || typeof half !== 'number')
    x.refuse('its shape is not known', 'Run ONNX shape inference on the model first.');
  const heads = intAttribute(x.node, 'num_heads', 0);
  if (rank === 3 && heads === 0)
    x.refuse('its number of heads is not given', 'Export the model again, with num_heads.');
  const v = rank === 3 ? x.add('Reshape', [input, x.int64([0, 0, heads, -1])]) : input;
  const headAxis = rank === 3 ? 2 : 1;
  const angles = [cos, sin].map((a) => x.add('Unsqueeze', [a, x.int64([headAxis])]));
  const last = x.int64([-1]);
  const slice = (from: number, to: number, step = 1) =>
    x.add('Slice', [v, x.int64([from]), x.int64([to]), last, x.int64([step])]);

  const interleaved = intAttribute(x.node, 'interleaved', 0) !== 0;
  const [a, b] = interleaved
    ? [slice(0, 2 * half, 2), slice(1, 2 * half, 2)]
    : [slice(0, half), slice(half, 2 * half)];
  const mul = (p: string, q: string) => x.add('Mul', [p, q]);
  const turned = [
    x.add('Sub', [mul(a, angles[0]), mul(b, angles[1])]),
    x.add('Add', [mul(a, angles[1]), mul(b, angles[0])]),
  ];
  const partial = intAttribute(x.node, 'rotary_embedding_dim', 0) > 0;
  const rest = partial ? [slice(2 * half, Number.MAX_SAFE_INTEGER)] : [];
  const whole = interleaved ? [woven(x, turned, 2 * half)] : turned;
  const parts = [...whole, ...rest];
  const [single] = parts;
  const joined = parts.length > 1 ? x.add('Concat', parts, [int('axis', -1)]) : single;
  x.add('Reshape', [joined, x.add('Shape', [input])], [], x.output());
}

/** Two tensors [.., r] with their features in turn, [.., 2r]. */
function woven(x: Expansion, pair: readonly string[], width: number): string {
  const columns = pair.map((p) => x.add('Unsqueeze', [p, x.int64([-1])]));
  const rows = x.add('Concat', columns, [int('axis', -1)]);
  return x.add('Reshape', [rows, x.int64([0, 0, 0, width])]);
}
