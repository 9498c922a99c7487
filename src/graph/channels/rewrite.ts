import {
  dtypeCode,
  type GraphProto,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  type ValueInfoProto,
} from '../../onnx/index.js';
import { int, makeNode, tensorType } from '../build.js';
import type { ConstantView } from '../constants.js';
import { Graph } from '../graph.js';
import { dependencies } from '../topology.js';

/** A node's input that is to read another constant. */
export interface NewConstant {
  node: NodeProto;
  input: number;
  /** What it read before; absent where the input was left out. */
  view?: ConstantView;
  /** Without a name: it is given one. */
  tensor: TensorProto;
  /** Inputs that read the same constant and shall do so again have the same key. */
  key: string;
}

/**
 * A copy of a model in which nodes read other constants. What is not changed is shared with the
 * original, tensors above all. A constant keeps its name where all of its readers change alike; else
 * the original stays for the others.
 */
export class Rewrite {
  readonly #proto: ModelProto;
  readonly #graph: Graph;
  readonly #names: Set<string>;
  readonly #copies = new Map<NodeProto, NodeProto>();
  readonly #replaced = new Map<TensorProto, TensorProto>();
  readonly #added: TensorProto[] = [];
  readonly #casts = new Map<NodeProto, NodeProto[]>();
  readonly #unread: string[] = [];

  constructor(proto: ModelProto) {
    this.#proto = proto;
    this.#graph = new Graph(proto);
    this.#names = new Set(this.#graph.scopes.flatMap((scope) => [...scope.values.keys()]));
  }

  /** The copy of a node, to be changed at will. */
  edit(node: NodeProto): NodeProto {
    let copy = this.#copies.get(node);
    if (!copy) {
      copy = { ...node, input: [...node.input], attribute: [...node.attribute] };
      this.#copies.set(node, copy);
    }
    return copy;
  }

  constants(changes: readonly NewConstant[]): void {
    const byKey = new Map<string, NewConstant[]>();
    for (const change of changes) byKey.set(change.key, [...(byKey.get(change.key) ?? []), change]);
    for (const alike of byKey.values()) this.#share(alike);
  }

  #share(alike: NewConstant[]): void {
    const [{ view, node, input, tensor }] = alike;
    const stored = view?.source.initializer;
    const inPlace = view && stored && this.#onlyRead(view, alike);
    const name = inPlace
      ? view.source.name
      : this.#fresh(view?.source.name ?? `${node.output[0]}/${input}`);
    const named = { ...tensor, name };
    if (stored?.docString !== undefined) named.docString = stored.docString;
    if (stored?.metadataProps) named.metadataProps = stored.metadataProps;
    if (inPlace) this.#replaced.set(stored, named);
    else this.#added.push(named);
    for (const change of alike) {
      const copy = this.edit(change.node);
      while (copy.input.length <= change.input) copy.input.push('');
      if (copy.input[change.input]) this.#unread.push(copy.input[change.input]);
      copy.input[change.input] = this.#cast(change, name);
    }
  }

  /** The constant under the element type that the node reads it in. */
  #cast({ node, view, tensor }: NewConstant, name: string): string {
    if (!view || dtypeCode(view.dtype) === tensor.dataType) return name;
    const output = this.#fresh(`${name}/cast`);
    const cast = makeNode('Cast', [name], output, [int('to', dtypeCode(view.dtype))]);
    this.#casts.set(node, [...(this.#casts.get(node) ?? []), cast]);
    return output;
  }

  /** Whether nothing but these inputs reads a constant, and they without detours. */
  #onlyRead({ source, tensor, dtype }: ConstantView, alike: readonly NewConstant[]): boolean {
    const readers = this.#graph.root.values.get(source.name)?.consumers ?? [];
    return (
      !source.isOutput &&
      source.scope.path === '' &&
      dtypeCode(dtype) === tensor.dataType &&
      readers.every((r) => alike.some((c) => c.node === r.node && c.input === r.index))
    );
  }

  #fresh(stem: string): string {
    let name = `${stem}/kept`;
    for (let n = 2; this.#names.has(name); n++) name = `${stem}/kept${n}`;
    this.#names.add(name);
    return name;
  }

  /** The rewritten model. @param describe another description of a value, where one is needed */
  finish(describe: (value: ValueInfoProto) => ValueInfoProto): ModelProto {
    const { graph } = this.#proto;
    if (!graph) throw new Error('a model without graph is not rewritten');
    const rewritten: GraphProto = {
      ...graph,
      node: graph.node.flatMap((node) => [
        ...(this.#casts.get(node) ?? []),
        this.#copies.get(node) ?? node,
      ]),
      initializer: [...graph.initializer.map((t) => this.#replaced.get(t) ?? t), ...this.#added],
      input: this.#listed(graph.input),
      valueInfo: graph.valueInfo.map(describe),
    };
    dropUnread(rewritten, this.#unread);
    return { ...this.#proto, graph: rewritten };
  }

  /** Inputs, among which files before IR 4 list the initializers. */
  #listed(inputs: readonly ValueInfoProto[]): ValueInfoProto[] {
    if ((this.#proto.irVersion ?? 0) >= 4) return [...inputs];
    const describe = ({ name, dataType = 0, dims }: TensorProto): ValueInfoProto => {
      return { name, type: tensorType(dataType, dims) };
    };
    const changed = new Map([...this.#replaced.values()].map((t) => [t.name, t]));
    const described = inputs.map((value) => {
      const tensor = changed.get(value.name);
      return tensor ? describe(tensor) : value;
    });
    return [...described, ...this.#added.map(describe)];
  }
}

/** Removes (in place) constants of these names that nothing reads, and the nodes that led to them. */
function dropUnread(graph: GraphProto, names: readonly string[]): void {
  const reads = new Map<string, number>();
  const count = (name: string, by: number) => reads.set(name, (reads.get(name) ?? 0) + by);
  for (const node of graph.node) for (const name of dependencies(node)) count(name, 1);
  for (const { name = '' } of graph.output) count(name, 1);
  const producers = new Map(graph.node.flatMap((n) => n.output.map((o) => [o, n] as const)));
  const dead = new Set<string>();
  const gone = new Set<NodeProto>();
  const pending = [...names];
  for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
    if (reads.get(name) || dead.has(name)) continue;
    const producer = producers.get(name);
    if (producer?.output.some((output) => reads.get(output))) continue;
    dead.add(name);
    if (!producer || gone.has(producer)) continue;
    gone.add(producer);
    for (const read of dependencies(producer)) {
      count(read, -1);
      pending.push(read);
    }
  }
  graph.node = graph.node.filter((node) => !gone.has(node));
  graph.initializer = graph.initializer.filter((t) => !dead.has(t.name ?? ''));
  graph.input = graph.input.filter((v) => !dead.has(v.name ?? ''));
  graph.valueInfo = graph.valueInfo.filter((v) => !dead.has(v.name ?? ''));
}
