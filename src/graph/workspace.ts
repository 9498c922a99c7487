import {
  type DType,
  type GraphProto,
  type Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../onnx/index.js';
import { allGraphs, mainGraph, Names } from './bodies.js';
import { Constants, type ConstantView, isView } from './constants.js';
import { inlineFunctions } from './functions.js';
import { Graph, type Value } from './graph.js';
import { dependencies } from './topology.js';

/** From this IR version on, an initializer that is also an input is a default that callers may override. */
const overridableSince = 4;

/**
 * The main graph of a model under surgery: a view of it as it is, and what is to stand in its nodes'
 * place. The model changes with `commit`, and not before.
 */
export class Workspace {
  /** The model with local functions inlined. */
  readonly proto: ModelProto;
  readonly graph: GraphProto;
  readonly view: Graph;
  readonly constants: Constants;
  readonly names: Names;
  readonly #made: TensorProto[] = [];
  readonly #superseded = new Set<string>();

  /** @throws {ResectError} exit 5 for a graph with a cycle or with an undefined value */
  constructor(readonly model: Model) {
    this.proto = inlineFunctions(model.proto);
    this.graph = mainGraph(this.proto);
    this.view = new Graph(this.proto);
    this.constants = new Constants(this.view);
    this.names = new Names(this.graph);
  }

  /** The value that an input of a node of the main graph reads. */
  input(node: NodeProto, index: number): Value | undefined {
    return this.view.input(this.view.root, node, index);
  }

  output(node: NodeProto): Value | undefined {
    return this.view.root.values.get(node.output[0] ?? '');
  }

  /** The stored tensor that an input reads; undefined when there is none, or callers may override it. */
  constant(node: NodeProto, index: number): ConstantView | undefined {
    const value = this.input(node, index);
    const traced = value && this.constants.trace(value);
    return isView(traced) && !this.isOverridable(traced) ? traced : undefined;
  }

  isOverridable({ source }: ConstantView): boolean {
    return source.isInput && Number(this.proto.irVersion ?? 0) >= overridableSince;
  }

  /** The only reader of a value, in the main graph; undefined when there are others. */
  onlyReader(value: Value | undefined): NodeProto | undefined {
    if (!value || value.isOutput || value.consumers.length !== 1) return undefined;
    const [{ node, scope }] = value.consumers;
    return scope === this.view.root ? node : undefined;
  }

  /**
   * Adds an initializer; returns its name.
   * @param wanted a name, or the stored value whose place it takes
   */
  store(wanted: string | Value, dtype: DType, shape: readonly number[], bytes: Uint8Array): string {
    const name = typeof wanted === 'string' ? this.names.fresh(wanted) : wanted.name;
    if (typeof wanted !== 'string') this.#superseded.add(name);
    this.#made.push(makeTensor({ name, dtype, shape, bytes }));
    return name;
  }

  /** Adds a float32 initializer. */
  storeFloats(wanted: string | Value, values: Float32Array, shape: readonly number[]): string {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return this.store(wanted, 'float32', shape, bytes);
  }

  /**
   * Puts `nodes` in place of the main graph's. Constants that nothing reads any more leave the model;
   * what nothing read before stays.
   */
  commit(nodes: NodeProto[]): void {
    const before = readNames(this.graph);
    const graph = { ...this.graph };
    const stays = (name = '') => !this.#superseded.has(name);
    graph.node = nodes.filter(({ output }) => output.every(stays));
    graph.input = graph.input.filter(({ name }) => stays(name));
    graph.initializer = [...graph.initializer.filter(({ name }) => stays(name)), ...this.#made];
    dropUnread(graph, before);
    const defined = new Set(graph.node.flatMap(({ output }) => output));
    graph.valueInfo = graph.valueInfo.filter(({ name = '' }) => defined.has(name));
    Object.assign(this.model.proto, this.proto, { graph });
  }
}

/** Every name that a node or an output reads, at any depth. */
function readNames(main: GraphProto): Set<string> {
  const names = new Set<string>();
  for (const { node, output } of allGraphs(main)) {
    for (const { input } of node) for (const name of input) names.add(name);
    for (const { name } of output) names.add(name ?? '');
  }
  return names;
}

/** Removes (in place) what was read `before`, and is no more. */
function dropUnread(graph: GraphProto, before: ReadonlySet<string>): void {
  const readers = new Map<string, number>();
  const count = (name: string, change: 1 | -1) =>
    readers.set(name, (readers.get(name) ?? 0) + change);
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) {
    for (const name of dependencies(node)) count(name, 1);
    for (const name of node.output) producers.set(name, node);
  }
  for (const { name = '' } of graph.output) count(name, 1);

  const gone = new Set<NodeProto>();
  const unread = [...before].filter((name) => !readers.get(name));
  // Grows while nodes go that were the last to read a value.
  for (const name of unread) {
    const node = producers.get(name);
    if (!node || gone.has(node) || node.output.some((output) => readers.get(output))) continue;
    gone.add(node);
    for (const read of dependencies(node)) {
      count(read, -1);
      if (readers.get(read) === 0 && before.has(read)) unread.push(read);
    }
  }
  const dropped = new Set(unread);
  const stays = ({ name = '' }: { name?: string }) => !dropped.has(name) || producers.has(name);
  graph.node = graph.node.filter((node) => !gone.has(node));
  graph.initializer = graph.initializer.filter(stays);
  graph.input = graph.input.filter(stays);
}
