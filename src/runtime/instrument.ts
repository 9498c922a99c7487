import { type Scope, scopePath } from '../graph/graph.js';
import type { FeatureLayout } from '../graph/linear-layers.js';
import { attribute, intsAttribute, subgraphs } from '../graph/nodes.js';
import {
  type AttributeProto,
  AttributeType,
  dtypeCode,
  dtypeOf,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../onnx/index.js';
import type { Feeds } from './session.js';

/** An activation whose statistics are wanted. */
export interface Probe {
  scope: Scope;
  /** Name of the activation in `scope`. */
  value: string;
  layout: FeatureLayout;
  /** Number of features, C. */
  features: number;
  /** Convolution groups: the Gram matrix is taken per group of C / groups features. */
  groups: number;
  /** Wanted: Gram matrices. */
  gram: boolean;
}

/** What one run of an instrumented model says of one probe; N is the number of token rows seen. */
export interface Reduction {
  tokens: number;
  /** [C] Σ x. */
  sum: Float32Array;
  /** [C] Σ (x - mean of this run)². */
  centredSquares: Float32Array;
  /** [groups, C/groups, C/groups] Σ xᵀx, float32. */
  gram?: Float32Array;
  /** [picks, C] a few of the rows themselves. */
  rows: Float32Array;
}

/** Input of an instrumented model: float32 [picks] in [0, 1), which rows of every probe to hand out. */
export const pickInput = 'resect/pick';
/** Input of an instrumented model, present when rows are padded: int64 [n], the rows that count. */
export const validInput = 'resect/valid';

/**
 * A copy of `model` that also puts out the reductions of each probe: only per-feature sums, Gram
 * matrices and a few picked rows leave the graph, never whole activations. Tensors are shared with
 * the original. The model's own outputs are kept when `keepOutputs` names them.
 *
 * @param padded probes of which only the rows listed in `validInput` count.
 */
export function instrument(
  model: ModelProto,
  probes: readonly Probe[],
  options: { keepOutputs?: readonly string[]; padded?: ReadonlySet<Probe> } = {},
): ModelProto {
  if (!model.graph) throw new Error('a model without graph cannot be instrumented');
  const graph = copyGraph(model.graph);
  const bodies = new Map<string, Body[]>([['', [{ graph }]]]);
  indexBodies(graph, '', [{ graph }], bodies);
  const opset = defaultOpset(model);
  graph.output = (options.keepOutputs ?? []).map((name) => ({ name }));
  graph.input = [...graph.input, { name: pickInput, type: tensorType(dtypeCode('float32')) }];
  if (options.padded?.size)
    graph.input.push({ name: validInput, type: tensorType(dtypeCode('int64')) });
  for (const [i, probe] of probes.entries()) {
    const chain = bodies.get(probe.scope.path);
    if (!chain) throw new Error(`no body at ${probe.scope.path}`);
    addReductions(chain, probe, `resect/${i}`, opset, options.padded?.has(probe) ?? false);
  }
  return { ...model, irVersion: Math.max(Number(model.irVersion ?? 4), 4), graph };
}

/** Reads the outputs that `instrument` added for the probe at position `i`; undefined when it was not executed. */
export function readReduction(outputs: Feeds, i: number): Reduction | undefined {
  const tokens = Number((outputs[`resect/${i}/shape`].data as BigInt64Array)[0] ?? 0);
  if (tokens === 0) return undefined;
  return {
    tokens,
    sum: outputs[`resect/${i}/sum`].data as Float32Array,
    centredSquares: outputs[`resect/${i}/centred`].data as Float32Array,
    gram: outputs[`resect/${i}/gram`]?.data as Float32Array | undefined,
    rows: outputs[`resect/${i}/rows`].data as Float32Array,
  };
}

export function defaultOpset(model: ModelProto): number {
  const versions = model.opsetImport
    .filter((o) => !o.domain || o.domain === 'ai.onnx')
    .map((o) => Number(o.version));
  return Math.max(1, ...versions);
}

/** A graph body on the way from the main graph down, with the node and branch that hold it. */
interface Body {
  graph: GraphProto;
  owner?: NodeProto;
}

function addReductions(
  chain: Body[],
  probe: Probe,
  prefix: string,
  opset: number,
  padded: boolean,
): void {
  const { graph } = chain[chain.length - 1];
  const nodes: NodeProto[] = [];
  let serial = 0;
  const emit = (
    opType: string,
    input: string[],
    attributes: AttributeProto[] = [],
    output = `${prefix}/${serial++}`,
  ) => {
    nodes.push({
      name: `${output}:${opType}`,
      opType,
      input,
      output: [output],
      attribute: attributes,
    });
    return output;
  };
  const constant = (tensor: TensorProto) =>
    emit('Constant', [], [{ name: 'value', type: AttributeType.tensor, t: tensor }]);
  const reshape = (x: string, shape: number[]) =>
    emit('Reshape', [x, constant(int64Tensor(shape))]);
  const cast = (x: string, to: number, output?: string) =>
    emit('Cast', [x], [int('to', to)], output);
  const sumRows = (x: string, output: string) =>
    opset >= 13
      ? emit('ReduceSum', [x, constant(int64Tensor([0]))], [int('keepdims', 0)], output)
      : emit('ReduceSum', [x], [ints('axes', [0]), int('keepdims', 0)], output);

  let rows = features(probe, cast(probe.value, dtypeCode('float32')), { emit, constant, reshape });
  if (padded) rows = emit('Gather', [rows, validInput], [int('axis', 0)]);

  const shape = emit('Shape', [rows], [], `${prefix}/shape`);
  const sum = sumRows(rows, `${prefix}/sum`);
  const count = cast(
    emit('Gather', [shape, constant(int64Tensor([0]))], [int('axis', 0)]),
    dtypeCode('float32'),
  );
  const centred = emit('Sub', [rows, emit('Div', [sum, count])]);
  // Not ReduceSumSquare, for which the runtime has no fast kernel.
  sumRows(emit('Mul', [centred, centred]), `${prefix}/centred`);
  const position = emit('Mul', [pickInput, count]);
  emit('Gather', [rows, cast(position, dtypeCode('int64'))], [int('axis', 0)], `${prefix}/rows`);
  const outputs: [string, number][] = [
    [shape, dtypeCode('int64')],
    [sum, dtypeCode('float32')],
    [`${prefix}/centred`, dtypeCode('float32')],
    [`${prefix}/rows`, dtypeCode('float32')],
  ];
  if (probe.gram) {
    const width = probe.features / probe.groups;
    const grouped = emit(
      'Transpose',
      [reshape(rows, [-1, probe.groups, width])],
      [ints('perm', [1, 0, 2])],
    );
    const turned = emit('Transpose', [grouped], [ints('perm', [0, 2, 1])]);
    emit('MatMul', [turned, grouped], [], `${prefix}/gram`);
    outputs.push([`${prefix}/gram`, dtypeCode('float32')]);
  }
  graph.node = [...graph.node, ...nodes];
  for (const [name, elemType] of outputs) expose(chain, name, elemType);
}

interface Builder {
  emit(opType: string, input: string[], attributes?: AttributeProto[]): string;
  constant(tensor: TensorProto): string;
  reshape(x: string, shape: number[]): string;
}

/** The probe's activation as token rows [N, C]. */
function features(probe: Probe, x: string, { emit, constant, reshape }: Builder): string {
  const { layout, features: width } = probe;
  if (layout.kind === 'axis') {
    // The rank may be unknown: a negative axis is moved by an ellipsis, axis 0 is Gemm's and so of rank 2.
    if (layout.axis === -2) x = emit('Einsum', [x], [string('equation', '...ij->...ji')]);
    if (layout.axis === 0) x = emit('Transpose', [x], [ints('perm', [1, 0])]);
    return reshape(x, [-1, width]);
  }
  // Patches are a depthwise convolution with one kernel per tap, so that the runtime's own
  // strides, dilations and padding apply. Order: channel, then tap, as in a flattened weight.
  const taps = layout.kernel.reduce((a, b) => a * b, 1);
  if (!isPointwise(layout.node, taps)) {
    const kernel = constant(tapKernel(layout.channels, layout.kernel));
    const geometry = ['auto_pad', 'dilations', 'pads', 'strides'].flatMap(
      (name) => attribute(layout.node, name) ?? [],
    );
    x = emit('Conv', [x, kernel], [...geometry, int('group', layout.channels)]);
  }
  return reshape(emit('Transpose', [reshape(x, [0, width, -1])], [ints('perm', [0, 2, 1])]), [
    -1,
    width,
  ]);
}

const isPointwise = (node: NodeProto, taps: number): boolean =>
  taps === 1 &&
  (intsAttribute(node, 'strides') ?? []).every((s) => s === 1) &&
  (intsAttribute(node, 'pads') ?? []).every((p) => p === 0);

function tapKernel(channels: number, kernel: number[]): TensorProto {
  const taps = kernel.reduce((a, b) => a * b, 1);
  const values = new Float32Array(channels * taps * taps);
  for (let c = 0; c < channels; c++)
    for (let t = 0; t < taps; t++) values[(c * taps + t) * taps + t] = 1;
  return makeTensor({
    name: '',
    dtype: 'float32',
    shape: [channels * taps, 1, ...kernel],
    bytes: new Uint8Array(values.buffer),
  });
}

/** Hands a value of the innermost body up to the main graph; branches not taken put out an empty tensor. */
function expose(chain: Body[], name: string, elemType: number): void {
  for (let depth = chain.length - 1; depth >= 0; depth--) {
    const { graph, owner } = chain[depth];
    graph.output = [...graph.output, { name, type: tensorType(elemType) }];
    if (!owner) return;
    for (const { graph: other } of subgraphs(owner)) {
      if (other === graph) continue;
      const empty = makeTensor({
        name: '',
        dtype: dtypeOf(elemType),
        shape: [0],
        bytes: new Uint8Array(0),
      });
      other.node = [
        ...other.node,
        {
          opType: 'Constant',
          name: `${name}/absent`,
          input: [],
          output: [`${name}/absent`],
          attribute: [{ name: 'value', type: AttributeType.tensor, t: empty }],
        },
      ];
      other.output = [...other.output, { name: `${name}/absent`, type: tensorType(elemType) }];
    }
    owner.output = [...owner.output, name];
  }
}

/** Copies graphs, nodes and attributes, at every depth; tensors are shared. */
function copyGraph(graph: GraphProto): GraphProto {
  return {
    ...graph,
    node: graph.node.map((node) => ({
      ...node,
      output: [...node.output],
      attribute: node.attribute.map((a) => (a.g ? { ...a, g: copyGraph(a.g) } : a)),
    })),
    output: [...graph.output],
  };
}

/** Records every body under `path`, named as the graph view names scopes. */
function indexBodies(
  graph: GraphProto,
  path: string,
  chain: Body[],
  bodies: Map<string, Body[]>,
): void {
  for (const node of graph.node) {
    for (const { name, graph: body } of subgraphs(node)) {
      const bodyPath = scopePath(path, node, name);
      const bodyChain = [...chain, { graph: body, owner: node }];
      bodies.set(bodyPath, bodyChain);
      indexBodies(body, bodyPath, bodyChain, bodies);
    }
  }
}

const int = (name: string, i: number): AttributeProto => ({ name, type: AttributeType.int, i });
const ints = (name: string, values: number[]): AttributeProto => ({
  name,
  type: AttributeType.ints,
  ints: values,
});
const string = (name: string, s: string): AttributeProto => ({
  name,
  type: AttributeType.string,
  s: new TextEncoder().encode(s),
});
const tensorType = (elemType: number) => ({ tensorType: { elemType } });

const int64Tensor = (values: number[]): TensorProto =>
  makeTensor({
    name: '',
    dtype: 'int64',
    shape: [values.length],
    bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
  });
