import { mainGraph, mapBodies, Names } from '../../../graph/bodies.js';
import { isStandard } from '../../../graph/nodes.js';
import { dependencies, topologicalOrder } from '../../../graph/topology.js';
import {
  type GraphProto,
  type Model,
  type NodeProto,
  readTensorBytes,
  type TensorProto,
  tensorInfo,
} from '../../../onnx/index.js';
import { interpolate } from '../interpolate.js';
import type { PairedTensor } from '../pair/pair.js';

/** A float tensor that two models of one structure store at the same place, with other values. */
export interface DifferingTensor {
  /** In the expert: the initializer, or the output of the Constant node. */
  name: string;
  expert: TensorProto;
  generalist: TensorProto;
  role: PairedTensor['role'];
}

/**
 * The graph of the expert on its way to a graph of both. Weights that differ are initializers, twice;
 * all else that the models have in common is there once.
 */
export class Pair {
  readonly names: Names;
  readonly graph: GraphProto;
  /** Nodes in topological order, the constants that became initializers left out. */
  readonly nodes: NodeProto[];
  readonly initializers: TensorProto[];
  /** The expert's name of each tensor that differs, and of that with the generalist's values. */
  readonly weights = new Map<string, string>();
  /** Values that depend on a weight that differs. */
  readonly differing = new Set<string>();
  /** Values that depend on an input of the model. */
  readonly fed: Set<string>;
  /** Those that depend on what is in an input, and not on its shape alone. */
  readonly sampled: Set<string>;

  readonly #tensors: ReadonlyMap<string, DifferingTensor>;

  constructor(
    readonly model: Model,
    readonly generalist: Model,
    tensors: readonly DifferingTensor[],
  ) {
    this.graph = mainGraph(model.proto);
    this.names = new Names(this.graph);
    this.#tensors = new Map(tensors.map((t) => [t.name, t]));
    const isWeight = (node: NodeProto) =>
      isStandard(node) && node.opType === 'Constant' && this.#tensors.has(node.output[0]);
    this.nodes = topologicalOrder(this.graph).filter((node) => !isWeight(node));
    const stored = new Set(this.graph.initializer.map(({ name }) => name));
    this.initializers = [
      ...this.graph.initializer,
      ...tensors.flatMap((t) => (stored.has(t.name) ? [] : [this.#named(t.expert, t.name)])),
    ];
    for (const t of tensors) {
      const other = this.#standIn(t.expert, this.names.fresh(`${t.name}@g`), () =>
        readTensorBytes(generalist, t.generalist),
      );
      this.weights.set(t.name, other.name ?? '');
      this.differing.add(t.name);
    }
    const stays = new Set(this.initializers.map(({ name }) => name));
    this.fed = new Set(
      this.graph.input.flatMap(({ name = '' }) => (stays.has(name) ? [] : [name])),
    );
    this.sampled = new Set(this.fed);
    for (const node of this.nodes) {
      const reads = dependencies(node);
      if (reads.some((name) => this.fed.has(name))) for (const o of node.output) this.fed.add(o);
      // A shape is the same whatever the weights are.
      if (isStandard(node) && (node.opType === 'Shape' || node.opType === 'Size')) continue;
      if (reads.some((name) => this.sampled.has(name)))
        for (const o of node.output) this.sampled.add(o);
      if (reads.some((name) => this.differing.has(name)))
        for (const o of node.output) this.differing.add(o);
    }
  }

  /** Names of the outputs that depend on a weight that differs. */
  get outputs(): string[] {
    const names = this.graph.output.map(({ name = '' }) => name);
    return names.filter((name) => this.differing.has(name));
  }

  isVariance = (name: string): boolean => this.#tensors.get(name)?.role === 'variance';

  /** Nodes whose results are the same in both models. */
  get sharedNodes(): NodeProto[] {
    return this.nodes.filter(({ output }) => !output.some((name) => this.differing.has(name)));
  }

  /** Nodes whose results depend on a weight that differs. */
  get ownNodes(): NodeProto[] {
    return this.nodes.filter(({ output }) => output.some((name) => this.differing.has(name)));
  }

  /** Stores what is between both models' values of a weight; returns the name. */
  storeMerge(name: string, wanted: string, share: number): string {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new Error(`${name} is no weight`);
    const { expert, generalist } = tensor;
    const merged = this.#standIn(expert, this.names.fresh(wanted), async (raw) =>
      interpolate(
        tensorInfo(expert),
        raw,
        await readTensorBytes(this.generalist, generalist),
        share,
      ),
    );
    return merged.name ?? '';
  }

  #standIn(
    like: TensorProto,
    name: string,
    values: (expert: Uint8Array) => Uint8Array | Promise<Uint8Array>,
  ): TensorProto {
    const tensor = { ...like, name };
    const edit = this.model.edits.get(like);
    this.model.edits.set(tensor, async (raw) => values(edit ? await edit(raw) : raw));
    this.initializers.push(tensor);
    return tensor;
  }

  #named(tensor: TensorProto, name: string): TensorProto {
    const named = { ...tensor, name };
    const edit = this.model.edits.get(tensor);
    if (edit) this.model.edits.set(named, edit);
    return named;
  }
}

/** Copies nodes under other names: `rename` says what their reads and their outputs are called. */
export const copyNodes = (
  nodes: readonly NodeProto[],
  rename: ReadonlyMap<string, string>,
  suffix: string,
): NodeProto[] => nodes.map((node) => renamed(node, rename, suffix));

function renamed(node: NodeProto, rename: ReadonlyMap<string, string>, suffix: string): NodeProto {
  const called = (name: string) => rename.get(name) ?? name;
  const copy = {
    ...node,
    ...(node.name && { name: `${node.name}${suffix}` }),
    input: node.input.map(called),
    output: node.output.map(called),
  };
  return mapBodies(copy, (body) => ({
    ...body,
    node: body.node.map((inner) => renamed(inner, rename, '')),
    output: body.output.map((o) => ({ ...o, name: called(o.name ?? '') })),
  }));
}

/** Fresh names for the outputs of nodes, and what is in their place of other names. */
export function renaming(
  names: Names,
  nodes: readonly NodeProto[],
  suffix: string,
  others: Iterable<readonly [string, string]> = [],
): Map<string, string> {
  const rename = new Map(others);
  for (const { output } of nodes)
    for (const name of output) if (name) rename.set(name, names.fresh(`${name}${suffix}`));
  return rename;
}
