import { foldConstants } from '../../src/autodiff/fold.js';
import { gradientGraph } from '../../src/autodiff/gradient-graph.js';
import type { TensorData } from '../../src/data/index.js';
import { opName } from '../../src/graph/nodes.js';
import type { ModelProto, NodeProto, TensorProto } from '../../src/onnx/index.js';
import { dtypeCode, encodeModel } from '../../src/onnx/index.js';
import { type Feeds, Session } from '../../src/runtime/session.js';

type DType = TensorData['dtype'];

/** A small graph whose gradients are checked, with what it is fed. */
export interface GradientCase {
  name: string;
  nodes: NodeProto[];
  /** Inputs that are differentiated by, unless `constant`, and their values; random where none are given. */
  inputs: Record<string, InputCase>;
  initializers?: TensorProto[];
  /** Graph outputs; default: the last node's first. */
  outputs?: string[];
  /** Default 17. */
  opset?: number;
  /** Node domains beyond the standard one, with version 1. */
  domains?: string[];
  /**
   * `difference` (default): against central differences in float64. `linear`: in float32, against exact
   * differences f(x + v) - f(x), for ops without a float64 kernel that are linear in every input alone.
   * A function: against a reference of one's own, in float32.
   */
  check?: 'difference' | 'linear' | Reference;
  /** Largest error relative to the largest gradient; default 1e-7 in float64, 2e-5 in float32. */
  tolerance?: number;
}

export interface InputCase {
  dims: number[];
  values?: ArrayLike<number>;
  /** Default: the case's floating type. */
  dtype?: DType;
  /** Fed, but not differentiated by. */
  constant?: boolean;
  /** Range of random values; default [-1, 1]. */
  range?: [number, number];
}

type Arrays = Record<string, Float64Array>;

/** dL/dx of each input for L = Σ seed * y, from the inputs' values and the seeds of the outputs. */
export type Reference = (inputs: Arrays, seeds: Arrays) => Arrays;

/** Numbers in [0, 1) that are the same in every run. */
export function random(seed: number): () => number {
  let state = seed + 0x9e3779b9;
  return () => {
    state = Math.imul(state ^ (state >>> 15), state | 1);
    state ^= state + Math.imul(state ^ (state >>> 7), state | 61);
    return ((state ^ (state >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Runs a case: the gradients that the rules make against those of the oracle.
 * @param reached takes up the ops that came to the reverse pass; folding writes some ops as others
 */
export async function checkGradient(
  given: GradientCase,
  seed = 1,
  reached = new Set<string>(),
): Promise<void> {
  const next = random(seed);
  const check = given.check ?? 'difference';
  const float: DType = check === 'difference' ? 'float64' : 'float32';
  const inputs = Object.entries(given.inputs).map(([name, input]) => {
    const [low, high] = input.range ?? [-1, 1];
    const size = input.dims.reduce((a, b) => a * b, 1);
    const values = Float64Array.from(
      input.values ?? Array.from({ length: size }, () => low + (high - low) * next()),
    );
    if (values.length !== size) throw new Error(`${name}: ${values.length} values for ${size}`);
    return { name, dims: input.dims, dtype: input.dtype ?? float, values, input };
  });
  const wrt = inputs.filter((i) => !i.input.constant && i.dtype === float).map((i) => i.name);
  const outputs = given.outputs ?? [given.nodes[given.nodes.length - 1].output[0]];
  const model: ModelProto = {
    irVersion: 8,
    functions: [],
    opsetImport: [
      { version: given.opset ?? 17 },
      ...(given.domains ?? []).map((domain) => ({ domain, version: 1 })),
    ],
    graph: {
      name: 'case',
      node: given.nodes,
      initializer: given.initializers ?? [],
      input: inputs.map(({ name, dims, dtype }) => ({
        name,
        type: {
          tensorType: {
            elemType: dtypeCode(dtype),
            shape: { dim: dims.map((dimValue) => ({ dimValue })) },
          },
        },
      })),
      output: outputs.map((name) => ({ name })),
      valueInfo: [],
    },
  };
  const feeds = toFeeds(inputs);
  const forward = await Session.open(encodeModel(model), { threads: 1, optimization: 'disabled' });
  const run = async (changed: Feeds) => toArrays(await forward.run(changed, outputs));
  try {
    const results = await forward.run(feeds, outputs);
    const seeds = outputs.map((name) => ({
      name: `seed/${name}`,
      dims: results[name].dims,
      dtype: results[name].dtype,
      values: Float64Array.from(results[name].data as Float32Array, () => 2 * next() - 1),
    }));
    const folded = await foldConstants(model);
    for (const node of folded.graph?.node ?? []) reached.add(opName(node));
    const made = await gradientGraph(folded, wrt, () => ({
      seeds: new Map(outputs.map((name) => [name, `seed/${name}`])),
      inputs: seeds.map(({ name, dtype, dims }) => ({ name, type: { dtype, dims } })),
      outputs: [],
    }));
    const session = await Session.open(encodeModel(made.model), {
      threads: 1,
      optimization: 'disabled',
    });
    const raw = await session.run({ ...feeds, ...toFeeds(seeds) });
    await session.release();

    const weights = Object.fromEntries(outputs.map((name, i) => [name, seeds[i].values]));
    const loss = (y: Arrays, y0?: Arrays) =>
      outputs.reduce(
        (sum, name) =>
          sum + weights[name].reduce((s, w, i) => s + w * (y[name][i] - (y0 ? y0[name][i] : 0)), 0),
        0,
      );
    const expected: Arrays =
      typeof check === 'function'
        ? check(Object.fromEntries(inputs.map((i) => [i.name, i.values])), weights)
        : {};
    const base = check === 'linear' ? toArrays(results) : undefined;
    for (const { name, values } of check === 'difference' || check === 'linear' ? inputs : []) {
      if (!wrt.includes(name)) continue;
      expected[name] = new Float64Array(values.length);
      for (let i = 0; i < values.length; i++) {
        const at = async (step: number) => {
          const moved = values.slice();
          moved[i] += step;
          return run({
            ...feeds,
            ...toFeeds(inputs.map((x) => (x.name === name ? { ...x, values: moved } : x))),
          });
        };
        if (base) {
          const zero = await at(-values[i]);
          expected[name][i] = loss(await at(1 - values[i]), zero);
        } else {
          const h = 1e-4 * Math.max(1, Math.abs(values[i]));
          // Fourth order: what is left is rounding, about 1e-11.
          const [a, b, c, d] = [await at(-2 * h), await at(-h), await at(h), await at(2 * h)];
          expected[name][i] =
            outputs.reduce(
              (sum, o) =>
                sum +
                weights[o].reduce(
                  (s, w, k) => s + w * (a[o][k] - d[o][k] + 8 * (c[o][k] - b[o][k])),
                  0,
                ),
              0,
            ) /
            (12 * h);
        }
      }
    }
    const tolerance = given.tolerance ?? (float === 'float64' ? 1e-7 : 2e-5);
    for (const name of wrt) {
      const output = made.gradients.get(name);
      const dims = given.inputs[name].dims;
      if (!output) throw new Error(`no gradient for ${name}`);
      expect({ name, dims: raw[output].dims }).toEqual({ name, dims });
      const got = Float64Array.from(raw[output].data as Float32Array);
      const scale = expected[name].reduce((m, v) => Math.max(m, Math.abs(v)), 1e-3);
      const errors = got.map((v, i) => Math.abs(v - expected[name][i]) / scale);
      const worst = errors.reduce((m, v) => Math.max(m, Number.isNaN(v) ? Infinity : v), 0);
      if (!(worst <= tolerance))
        throw new Error(
          `${given.name}, d${name}: error ${worst}\n got ${got.slice(0, 12)}\n expected ${expected[name].slice(0, 12)}`,
        );
    }
  } finally {
    await forward.release();
  }
}

function toFeeds(
  inputs: readonly { name: string; dims: number[]; dtype: DType; values: Float64Array }[],
): Feeds {
  return Object.fromEntries(
    inputs.map(({ name, dims, dtype, values }) => [
      name,
      { dtype, dims, data: typed(values, dtype) },
    ]),
  );
}

function typed(values: Float64Array, dtype: DType) {
  switch (dtype) {
    case 'float64':
      return values;
    case 'int64':
      return BigInt64Array.from(values, (v) => BigInt(Math.round(v)));
    case 'int32':
      return Int32Array.from(values);
    case 'bool':
      return Uint8Array.from(values);
    default:
      return Float32Array.from(values);
  }
}

const toArrays = (results: Feeds): Arrays =>
  Object.fromEntries(
    Object.entries(results).map(([name, { data }]) => [
      name,
      Float64Array.from(data as ArrayLike<number>),
    ]),
  );
