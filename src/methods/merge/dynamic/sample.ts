import { floatAttribute } from '../../../graph/nodes.js';
import { type DType, dtypeOf, type NodeProto } from '../../../onnx/index.js';
import { extrapolates } from '../coefficient-rule.js';
import { blend, type DynamicOptions, leastVariance } from './batch.js';
import { type Branches, commit, emitBranches } from './branches.js';
import type { Plan } from './classify.js';
import { copyNodes, type Pair } from './pair.js';

/** What is known of a value from running the model. */
export interface Probed {
  rank: number;
  /** The axis that the samples are along. */
  axis: number;
  /** Consecutive rows of that axis that belong to one sample. */
  rows: number;
  dtype: DType;
}

/** Values that `buildSample` needs to know of. */
export const probedValues = ({ treatments, blended }: Plan): string[] => [
  ...new Set([
    ...blended,
    ...[...treatments].flatMap(([node, t]) =>
      t === 'twice' || t === 'statistics' ? node.output.filter(Boolean) : [],
    ),
  ]),
];

/**
 * Turns the model into one in which every sample has merged weights of its own, without making them:
 * layers that are linear in their weights run with the weights of both models on the merged
 * activations, and the two results are blended. Exact but for rounding.
 * @param probed of every value of `probedValues`
 */
export function buildSample(
  pair: Pair,
  plan: Plan,
  probed: ReadonlyMap<string, Probed>,
  { scores, rule, outputs }: DynamicOptions,
): void {
  const branches = emitBranches(pair, scores, rule, false);
  const stream = new Stream(pair, branches, probed, extrapolates(rule));
  const merged: NodeProto[] = [];
  const blends = new Set(plan.blended);
  for (const node of pair.ownNodes) {
    const treatment = plan.treatments.get(node);
    if (treatment === 'twice') stream.twice(node);
    else if (treatment === 'statistics') stream.batchNorm(node);
    else if (treatment === 'once') merged.push(node);
    else for (const name of node.output) if (blends.has(name)) stream.blendBranches(name);
  }
  commit(pair, branches, merged, { outputs });
}

/** The merged stream: emits nodes whose results have the names that the expert's graph gives them. */
class Stream {
  readonly #shares = new Map<string, string>();

  constructor(
    readonly pair: Pair,
    readonly branches: Branches,
    readonly probed: ReadonlyMap<string, Probed>,
    readonly extrapolates: boolean,
  ) {}

  /** The blend of what both branches have. */
  blendBranches(name: string): void {
    const { expert, generalist } = this.branches;
    this.#blend(expert.get(name) ?? name, generalist.get(name) ?? name, name);
  }

  /** The node with either model's weights on the merged activations, blended. */
  twice(node: NodeProto): void {
    const { emitter, expert, generalist } = this.branches;
    const [e, g] = [expert, generalist].map((branch) => {
      const rename = new Map<string, string>();
      for (const name of node.input)
        if (this.#isWeight(name)) rename.set(name, branch.get(name) ?? name);
      for (const name of node.output) if (name) rename.set(name, emitter.names.fresh(`${name}@m`));
      const [copy] = copyNodes([node], rename, '');
      emitter.nodes.push({ ...copy, name: `${copy.output.find(Boolean)}:${copy.opType}` });
      return copy.output;
    });
    for (const [i, name] of node.output.entries()) if (name) this.#blend(e[i], g[i], name);
  }

  /** (x - mean) scale / √(var + ε) + bias as a x + b, with a and b [N, C] of each sample. */
  batchNorm(node: NodeProto): void {
    const { emitter } = this.branches;
    const [x, ...parameters] = node.input;
    const [output] = node.output;
    const { rank, rows, dtype } = this.#known(output);
    const share = this.#share({ rows, rank: 2, axis: 0 });
    const [scale, bias, mean, variance] = parameters.map((name) => this.#statistic(name, share));
    const epsilon = emitter.scalar(floatAttribute(node, 'epsilon', 1e-5));
    const positive = this.extrapolates
      ? emitter.emit('Max', [variance, emitter.scalar(leastVariance)])
      : variance;
    const deviation = emitter.emit('Sqrt', [emitter.emit('Add', [positive, epsilon])]);
    const factor = emitter.emit('Div', [scale, deviation]);
    const shift = emitter.emit('Sub', [bias, emitter.emit('Mul', [mean, factor])]);
    const channelwise = (y: string) =>
      rank === 2
        ? y
        : emitter.emit('Reshape', [y, emitter.ints([0, 0, ...Array<number>(rank - 2).fill(1)])]);
    const wide = dtype === 'float32' ? x : emitter.cast(x, 'float32');
    const scaled = emitter.emit('Mul', [wide, channelwise(factor)]);
    if (dtype === 'float32') emitter.emit('Add', [scaled, channelwise(shift)], [], output);
    else emitter.cast(emitter.emit('Add', [scaled, channelwise(shift)]), dtype, output);
  }

  /** Of weights alone: the same for every sample. */
  #isWeight = (name: string): boolean =>
    this.pair.differing.has(name) && !this.pair.sampled.has(name);

  /** float32 [N, C] of a parameter [C]; [C] where it is the same in both models. */
  #statistic(name: string, share: string): string {
    const { emitter, expert, generalist } = this.branches;
    const stored = this.pair.initializers.find((t) => t.name === name);
    const isWide = stored === undefined || dtypeOf(stored.dataType) === 'float32';
    const [e, g] = [expert, generalist].map((branch) => {
      const value = branch.get(name) ?? name;
      return isWide ? value : emitter.cast(value, 'float32');
    });
    return this.#isWeight(name) ? emitter.blend(e, g, share) : e;
  }

  /** `name` = the blend of a value of both models. */
  #blend(expert: string, generalist: string, name: string): void {
    const known = this.#known(name);
    blend(this.branches.emitter, expert, generalist, this.#share(known), known.dtype, name);
  }

  #known(name: string): Probed {
    const known = this.probed.get(name);
    if (!known) throw new Error(`${name} was not probed`);
    return known;
  }

  /** The generalist's share as [..., 1, N * rows, 1, ...]. */
  #share({ rows, rank, axis }: Omit<Probed, 'dtype'>): string {
    const key = `${rows},${rank},${axis}`;
    const made = this.#shares.get(key);
    if (made !== undefined) return made;
    const { emitter, coefficient } = this.branches;
    let share = coefficient.share;
    if (rows > 1) {
      const column = emitter.emit('Reshape', [share, emitter.ints([-1, 1])]);
      share = emitter.emit('Expand', [column, emitter.ints([1, rows])]);
    }
    const dims = Array<number>(rank).fill(1);
    dims[axis] = -1;
    const reshaped = emitter.emit('Reshape', [share, emitter.ints(dims)]);
    this.#shares.set(key, reshaped);
    return reshaped;
  }
}
