import { modelError } from '../../../errors.js';
import { Graph, type Scope, type Value } from '../../../graph/graph.js';
import { modelInputs, modelOutputs, type Port } from '../../../graph/interface.js';
import { attribute, isStandard, opName, subgraphs } from '../../../graph/nodes.js';
import {
  dtypeCode,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../../../onnx/index.js';

/** A tensor that a model stores, and how it is called. */
export interface StoredConstant {
  /** Of the initializer, or of the Constant node's output; with a path before it in a body. */
  name: string;
  tensor: TensorProto;
  /** Why it cannot take other values: where it is stored. Absent when it can. */
  fixed?: 'in a control-flow body' | 'in a list of numbers' | 'in an attribute';
}

/** What a node reads, or a graph puts out. */
export type Operand =
  | { kind: 'omitted' }
  | { kind: 'input'; value: Value }
  | { kind: 'constant'; constant: StoredConstant }
  /** Output `index` of the node of a step. */
  | { kind: 'output'; step: number; index: number };

export interface Body {
  attribute: string;
  scope: Scope;
  results: Operand[];
}

/** A node among those that the outputs depend on. */
export interface Step {
  node: NodeProto;
  /** Without trailing omitted ones. */
  operands: Operand[];
  /** In order of their attributes' names. */
  bodies: Body[];
}

/**
 * What a model computes, whatever its nodes and values are called and in whichever order the file has
 * them: two models are of one structure when their steps are equal one by one.
 */
export interface Structure {
  /**
   * The nodes that the outputs depend on, in bodies too, each after what it reads: depth first from
   * the outputs, operand by operand. Without Identity and Constant.
   */
  steps: Step[];
  results: Operand[];
  /** Of the main graph, by name. */
  inputs: Map<string, Port>;
  outputs: Port[];
  /** All of them in file order, initializers before Constant nodes, bodies last. */
  constants: StoredConstant[];
}

/**
 * @param model without local functions
 * @throws {ResectError} exit 5 on a cycle, for undefined values and for sparse constants
 */
export function structureOf(model: ModelProto): Structure {
  const graph = new Graph(model);
  const walk = new Walk(graph);
  const { root } = graph;
  const results = root.graph.output.map(({ name = '' }) => walk.visit(root, name));
  return {
    steps: walk.steps,
    results,
    inputs: new Map(modelInputs(model).map((port) => [port.name, port])),
    outputs: modelOutputs(model),
    constants: [...new Set(walk.constants.values())],
  };
}

/** A node whose operands are being visited. */
interface Frame {
  node: NodeProto;
  scope: Scope;
  pending: Value[];
}

/** What stands for the place of a node whose operands are being visited. */
const open = -1;

class Walk {
  readonly steps: Step[] = [];
  readonly constants = new Map<Value, StoredConstant>();
  readonly #graph: Graph;
  readonly #bodies: Map<GraphProto, Scope>;
  readonly #places = new Map<NodeProto, number>();
  readonly #sources = new Map<Value, Value>();

  constructor(graph: Graph) {
    this.#graph = graph;
    this.#bodies = new Map(graph.scopes.map((scope) => [scope.graph, scope]));
    const byTensor = new Map<TensorProto, StoredConstant>();
    const add = (scope: Scope, name = '', stored?: { tensor: TensorProto; isList: boolean }) => {
      const value = scope.values.get(name);
      if (!value || !stored) return;
      const { tensor, isList } = stored;
      // A function that is called twice has one tensor under two names.
      const constant = byTensor.get(tensor) ?? {
        name: scope.path ? `${scope.path}/${name}` : name,
        tensor,
        ...(isList && { fixed: 'in a list of numbers' as const }),
        ...(scope.parent && { fixed: 'in a control-flow body' as const }),
      };
      byTensor.set(tensor, constant);
      this.constants.set(value, constant);
    };
    for (const scope of graph.scopes) {
      for (const tensor of scope.graph.initializer)
        if (scope.values.get(tensor.name ?? '')?.initializer === tensor)
          add(scope, tensor.name, { tensor, isList: false });
      for (const node of scope.graph.node)
        if (isConstant(node) && scope.values.get(node.output[0])?.producer === node)
          add(scope, node.output[0], storedValue(node));
    }
  }

  /** Takes the steps to a value, and returns it. */
  visit(scope: Scope, name: string): Operand {
    const value = this.#read(scope, name);
    const stack: Frame[] = [];
    // An explicit stack: chains of 100,000 nodes exist, and would overflow the call stack.
    this.#enter(value, stack);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const next = top.pending.pop();
      if (next) this.#enter(next, stack);
      else {
        stack.pop();
        const step = this.#step(top);
        this.#places.set(top.node, this.steps.length);
        this.steps.push(step);
      }
    }
    return this.#operand(value);
  }

  #enter(value: Value | undefined, stack: Frame[]): void {
    if (!value?.producer || this.constants.has(value)) return;
    const { producer: node, scope } = value;
    const place = this.#places.get(node);
    if (place === open)
      throw modelError('The graph has a cycle.', { where: `node ${node.name || opName(node)}` });
    if (place !== undefined) return;
    this.#places.set(node, open);
    const reads = node.input.map((name) => this.#read(scope, name));
    for (const { body } of this.#bodiesOf(node))
      for (const { name = '' } of body.graph.output) reads.push(this.#read(body, name));
    const pending = reads.filter((read): read is Value => read !== undefined).reverse();
    stack.push({ node, scope, pending });
  }

  #step({ node, scope }: Frame): Step {
    const operands = node.input.map((name) => this.#operand(this.#read(scope, name)));
    while (operands.at(-1)?.kind === 'omitted') operands.pop();
    const bodies = this.#bodiesOf(node).map(({ attribute, body }) => ({
      attribute,
      scope: body,
      results: body.graph.output.map(({ name = '' }) => this.#operand(this.#read(body, name))),
    }));
    return { node, operands, bodies };
  }

  #bodiesOf(node: NodeProto): { attribute: string; body: Scope }[] {
    return subgraphs(node)
      .flatMap(({ name, graph }) => {
        const body = this.#bodies.get(graph);
        return body ? [{ attribute: name, body }] : [];
      })
      .sort((a, b) => (a.attribute < b.attribute ? -1 : 1));
  }

  #operand(value: Value | undefined): Operand {
    if (!value) return { kind: 'omitted' };
    const constant = this.constants.get(value);
    if (constant) return { kind: 'constant', constant };
    const { producer, name } = value;
    if (producer && isConstant(producer)) throw sparse(name);
    const step = producer && this.#places.get(producer);
    if (producer && step !== undefined)
      return { kind: 'output', step, index: producer.output.indexOf(name) };
    if (!value.isInput) throw sparse(name);
    return { kind: 'input', value };
  }

  /** The value that a name means, through Identity; undefined for an omitted one. */
  #read(scope: Scope, name: string): Value | undefined {
    let value = name ? this.#graph.lookup(scope, name) : undefined;
    if (!value) {
      if (name)
        throw modelError('The graph puts out a value that nothing defines.', {
          where: `output ${name}`,
          hint: 'Export the model again, or check it with onnx.checker.',
        });
      return undefined;
    }
    const passed: Value[] = [];
    // Marked as it is passed, so that a ring of Identity nodes has an end.
    for (let from = this.#copied(value); from; from = this.#copied(value)) {
      this.#sources.set(value, value);
      passed.push(value);
      value = from;
    }
    value = this.#sources.get(value) ?? value;
    for (const copy of passed) this.#sources.set(copy, value);
    return value;
  }

  /** What a value is a copy of, unless that is known already. */
  #copied(value: Value): Value | undefined {
    const { producer, scope } = value;
    if (this.#sources.has(value) || !producer || !isStandard(producer)) return undefined;
    return producer.opType === 'Identity' ? this.#graph.input(scope, producer, 0) : undefined;
  }
}

const isConstant = (node: NodeProto): boolean => isStandard(node) && node.opType === 'Constant';

/** What a Constant node holds; undefined when it is sparse. */
function storedValue(node: NodeProto): { tensor: TensorProto; isList: boolean } | undefined {
  const tensor = attribute(node, 'value')?.t;
  if (tensor) return { tensor, isList: false };
  for (const { name, f = 0, i = 0, s = new Uint8Array(), ...lists } of node.attribute) {
    const { floats = [], ints = [], strings = [] } = lists;
    const list = (made: TensorProto) => ({ tensor: made, isList: true });
    if (name === 'value_float') return list(floatTensor([f], []));
    if (name === 'value_floats') return list(floatTensor(floats, [floats.length]));
    if (name === 'value_int') return list(intTensor([i], []));
    if (name === 'value_ints') return list(intTensor(ints, [ints.length]));
    if (name === 'value_string') return list(textTensor([s], []));
    if (name === 'value_strings') return list(textTensor(strings, [strings.length]));
  }
  return undefined;
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  new Uint8Array(buffer, byteOffset, byteLength);

const floatTensor = (values: number[], shape: number[]): TensorProto =>
  makeTensor({ name: '', dtype: 'float32', shape, bytes: bytesOf(Float32Array.from(values)) });

const intTensor = (values: (number | bigint)[], shape: number[]): TensorProto =>
  makeTensor({
    name: '',
    dtype: 'int64',
    shape,
    bytes: bytesOf(BigInt64Array.from(values, BigInt)),
  });

const textTensor = (stringData: Uint8Array[], dims: number[]): TensorProto => ({
  dims,
  dataType: dtypeCode('string'),
  stringData,
});

const sparse = (name: string) =>
  modelError('A constant is stored as a sparse tensor.', {
    where: `tensor ${name}`,
    expected: 'dense constants',
    hint: 'Store it as a dense tensor, or export the model again without sparse initializers.',
  });
