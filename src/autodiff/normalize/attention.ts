import { int, ints } from '../../graph/build.js';
import { attribute, floatAttribute, intAttribute, intsAttribute } from '../../graph/nodes.js';
import type { Expansion, RewriteRule } from './rewrite.js';

/** Attention as MatMul, Softmax and what is between them. B batch, N heads, S queries, T keys, D head size. */
export const attentions: Record<string, RewriteRule> = {
  'com.microsoft.Attention': packedAttention,
  'com.microsoft.MultiHeadAttention': multiHeadAttention,
  Attention: standardAttention,
};

/** More heads than any network has: their number is the length of a list that is made. */
const maxHeads = 2 ** 16;

const lowest = -3.4028234663852886e38;

const unoptimised = 'Export the model without the attention fusion of graph optimisation.';

/** Attention whose projections of one input are one matrix, [in, 2·hidden + hidden of V]. */
function packedAttention(x: Expansion): void {
  const [input, weights, bias, mask, past, attentionBias] = [0, 1, 2, 3, 4, 5].map((i) =>
    x.input(i),
  );
  if (past) x.refuse('it takes a past state', 'Export the model without a key-value cache.');
  if (x.isRead(1))
    x.refuse('its present state is used', 'Export the model without a key-value cache.');
  if (intAttribute(x.node, 'do_rotary', 0) !== 0)
    x.refuse('it applies a rotary embedding', unoptimised);
  const heads = intAttribute(x.node, 'num_heads', 0);
  const width = x.dims(weights)?.[1];
  const sizes =
    intsAttribute(x.node, 'qkv_hidden_sizes') ??
    (typeof width === 'number' ? [width / 3, width / 3, width / 3] : undefined);
  if (!sizes) x.refuse('the size of its heads is not known', unoptimised);

  const product = x.add('MatMul', [input, weights]);
  const projected = bias ? x.add('Add', [product, bias]) : product;
  const [q, k, v] = split(x, projected, sizes).map((part) => intoHeads(x, part, heads));
  const additions = [
    ...(mask ? [packedMask(x, mask, input, k)] : []),
    ...(attentionBias ? [attentionBias] : []),
    ...(intAttribute(x.node, 'unidirectional', 0) !== 0 ? [causalMask(x, q, k)] : []),
  ];
  const context = attend(x, { q, k, v, scale: scaleAttribute(x), additions });
  outOfHeads(x, context);
}

function multiHeadAttention(x: Expansion): void {
  const [query, key, value, bias, padding, attentionBias, pastKey, pastValue] = Array.from(
    { length: 8 },
    (_, i) => x.input(i),
  );
  if (!key || !value) x.refuse('query, key and value are packed into one tensor', unoptimised);
  if (pastKey || pastValue)
    x.refuse('it takes a past state', 'Export the model without a key-value cache.');
  if ([query, key, value].some((name) => (x.rank(name) ?? 3) !== 3))
    x.refuse('key and value are split into heads already', unoptimised);
  const heads = intAttribute(x.node, 'num_heads', 0);
  const biases = bias ? biasParts(x, bias) : undefined;
  const [q, k, v] = [query, key, value].map((part, i) =>
    intoHeads(
      x,
      biases ? x.add('Add', [part, biases[i]]) : part,
      heads,
      i > 0 && x.isRead(i) ? x.output(i) : undefined,
    ),
  );
  const additions = [
    ...(padding ? [packedMask(x, padding, query, k)] : []),
    ...(attentionBias ? [attentionBias] : []),
    ...(intAttribute(x.node, 'unidirectional', 0) !== 0 ? [causalMask(x, q, k)] : []),
  ];
  const context = attend(x, { q, k, v, scale: scaleAttribute(x), additions });
  outOfHeads(x, context);
}

function biasParts(x: Expansion, bias: string): string[] {
  const [length] = x.dims(bias) ?? [];
  if (typeof length !== 'number') x.refuse('the length of its bias is not known', unoptimised);
  // Of equal length where V's heads are as wide as those of Q and K; others are refused by the runtime.
  return split(x, bias, [length / 3, length / 3, length / 3]);
}

/** The op of opset 23. */
function standardAttention(x: Expansion): void {
  const [query, key, value, mask, pastKey, pastValue, lengths] = Array.from({ length: 7 }, (_, i) =>
    x.input(i),
  );
  if (pastKey || pastValue || lengths)
    x.refuse('it takes a past state', 'Export the model without a key-value cache.');
  if (x.isRead(3)) x.refuse('its attention scores are used', 'Remove that output.');
  const queryHeads = intAttribute(x.node, 'q_num_heads', 0);
  const keyHeads = intAttribute(x.node, 'kv_num_heads', 0);
  const flat = queryHeads > 0;
  const present = (i: number) => (x.isRead(i) ? x.output(i) : undefined);
  const heads = (name: string, count: number, output?: string) => {
    if (flat) return intoHeads(x, name, count, output);
    if (output) x.add('Identity', [name], [], output);
    return name;
  };
  const q = heads(query, queryHeads);
  const repeat = (name: string) =>
    flat && keyHeads !== queryHeads ? repeated(x, name, keyHeads, queryHeads / keyHeads) : name;
  const k = repeat(heads(key, keyHeads, present(1)));
  const v = repeat(heads(value, keyHeads, present(2)));
  const additions = [
    ...(mask ? [additive(x, mask)] : []),
    ...(intAttribute(x.node, 'is_causal', 0) !== 0 ? [causalMask(x, q, k)] : []),
  ];
  const softcap = floatAttribute(x.node, 'softcap', 0);
  const scale = scaleAttribute(x);
  const context = attend(x, { q, k, v, scale, softcap, additions }, flat ? undefined : x.output());
  if (flat) outOfHeads(x, context);
}

const scaleAttribute = (x: Expansion): number | undefined =>
  attribute(x.node, 'scale')?.f || undefined;

/** [.., sum of sizes] into parts along the last axis. */
function split(x: Expansion, v: string, sizes: readonly number[]): string[] {
  if (sizes.some((s) => !Number.isInteger(s)))
    x.refuse('its projections are not of equal size', unoptimised);
  const outputs = sizes.map(() => x.name('Split'));
  x.add('Split', [v, x.int64(sizes)], [int('axis', -1)], outputs);
  return outputs;
}

/** [B, S, N·D] to [B, N, S, D]. */
function intoHeads(x: Expansion, v: string, heads: number, output?: string): string {
  const parts = x.add('Reshape', [v, x.int64([0, 0, heads, -1])]);
  return x.add('Transpose', [parts], [ints('perm', [0, 2, 1, 3])], output);
}

/** [B, N, S, D] to [B, S, N·D], the op's output. */
function outOfHeads(x: Expansion, context: string): void {
  const turned = x.add('Transpose', [context], [ints('perm', [0, 2, 1, 3])]);
  x.add('Reshape', [turned, x.int64([0, 0, -1])], [], x.output());
}

/** Every head of [B, heads, T, D] `times` times in a row. */
function repeated(x: Expansion, v: string, heads: number, times: number): string {
  if (!Number.isInteger(times) || heads * times > maxHeads)
    x.refuse('its numbers of heads do not fit', 'Correct the model.');
  const order = Array.from({ length: heads * times }, (_, i) => Math.floor(i / times));
  return x.add('Gather', [v, x.int64(order)], [int('axis', 1)]);
}

interface Operands {
  /** [B, N, S, D] */
  q: string;
  /** [B, N, T, D] */
  k: string;
  /** [B, N, T, D of V] */
  v: string;
  /** 1/√D when absent. */
  scale?: number;
  /** Scores are kept within ±softcap by a tanh; 0 for no bound. */
  softcap?: number;
  /** Broadcastable to the scores [B, N, S, T]. */
  additions: string[];
}

/** softmax(q kᵀ · scale + additions) v, [B, N, S, D of V]. */
function attend(x: Expansion, operands: Operands, output?: string): string {
  const { q, k, v, scale, softcap = 0, additions } = operands;
  const products = x.add('MatMul', [q, x.add('Transpose', [k], [ints('perm', [0, 1, 3, 2])])]);
  const factor = scale === undefined ? inverseRoot(x, q) : x.float(scale, q);
  let scores = x.add('Mul', [products, factor]);
  if (softcap > 0) {
    const bound = x.float(softcap, q);
    scores = x.add('Mul', [x.add('Tanh', [x.add('Div', [scores, bound])]), bound]);
  }
  for (const term of additions) scores = x.add('Add', [scores, term]);
  const weights = x.add('Softmax', [scores], [int('axis', -1)]);
  return x.add('MatMul', [weights, v], [], output);
}

/** 1/√D, computed from the shape: folded away as soon as that is known. */
function inverseRoot(x: Expansion, q: string): string {
  const size = x.castLike(x.length(q, -1), q);
  return x.add('Reciprocal', [x.add('Sqrt', [size])]);
}

/** 0 for keys up to the query's position and the lowest float after it, [S, T]. */
function causalMask(x: Expansion, q: string, k: string): string {
  const positions = (v: string, axis: number) => range(x, x.length(v, 2), axis);
  const seen = x.add('LessOrEqual', [positions(k, 0), positions(q, 1)]);
  return x.add('Where', [seen, x.float(0, q), x.float(lowest, q)]);
}

/** 0, 1, … up to `length`, with an axis of length 1 at `axis`. */
function range(x: Expansion, length: string, axis: number): string {
  const end = x.add('Squeeze', [length, x.int64([0])]);
  const numbers = x.add('Range', [x.int64Scalar(0), end, x.int64Scalar(1)]);
  return x.add('Unsqueeze', [numbers, x.int64([axis])]);
}

/**
 * An integer mask, 0 for keys to leave out, [B, T] or [B, S, T]; or numbers of keys to look at, [B].
 * What the others would be (start and end positions, [2·B]) cannot be told apart from their rank.
 */
function packedMask(x: Expansion, mask: string, input: string, k: string): string {
  const dims = x.dims(mask);
  const hint = 'Run ONNX shape inference on the model, or export it without attention fusion.';
  if (!dims) x.refuse('the rank of its mask is not known', hint);
  let seen: string;
  if (dims.length === 1) {
    const [batch] = x.dims(input) ?? [];
    if (dims[0] === '' || dims[0] !== batch)
      x.refuse('its mask holds other positions than the end of each sequence', hint);
    const ends = x.add('Unsqueeze', [mask, x.int64([1])]);
    const places = range(x, x.length(k, 2), 0);
    seen = x.add('Less', [places, x.add('CastLike', [ends, places])]);
  } else if (dims.length <= 3) {
    seen = x.add('Cast', [mask], [int('to', 9)]);
  } else {
    x.refuse('its mask is of rank 4', unoptimised);
  }
  const filter = floatAttribute(x.node, 'mask_filter_value', -10000);
  const scores = x.add('Where', [seen, x.float(0, k), x.float(filter, k)]);
  return x.add('Unsqueeze', [scores, x.int64(dims.length === 3 ? [1] : [1, 2])]);
}

/** A mask of opset 23: true for keys to look at, or a term of the scores. */
function additive(x: Expansion, mask: string): string {
  const dtype = x.dtype(mask);
  if (!dtype)
    x.refuse('the type of its mask is not known', 'Run ONNX shape inference on the model first.');
  if (dtype !== 'bool') return mask;
  const q = x.input(0);
  return x.add('Where', [mask, x.float(0, q), x.float(lowest, q)]);
}
