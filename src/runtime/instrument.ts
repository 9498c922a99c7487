import { modelError } from '../errors.js';
import {
  branch,
  emptyGraph,
  int,
  int64Tensor,
  ints,
  makeNode,
  tensor,
  tensorType,
} from '../graph/build.js';
import { type Scope, scopePath } from '../graph/graph.js';
import type { FeatureLayout } from '../graph/linear-layers.js';
import { attribute, intsAttribute, opName, subgraphs } from '../graph/nodes.js';
import {
  type AttributeProto,
  type DType,
  dtypeCode,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  type TensorProto,
} from '../onnx/index.js';
import type { Feeds } from './session.js';

/** Elements of the kernel that cuts patches: taps squared for each channel. */
const largestTapKernel = 2 ** 26;

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
 * the original. The model's own outputs are dropped.
 *
 * @param padded probes of which only the rows listed in `validInput` count.
 * @throws {ResectError} exit 5 for a convolution whose kernel is too large.
 */
export function instrument(
  model: ModelProto,
  probes: readonly Probe[],
  { padded }: { padded?: ReadonlySet<Probe> } = {},
): ModelProto {
  if (!model.graph) throw new Error('a model without graph cannot be instrumented');
  const graph = copyGraph(model.graph);
  const bodies = new Map<string, Body[]>([['', [{ graph }]]]);
  indexBodies(graph, '', [{ graph }], bodies);
  const opset = defaultOpset(model);
  graph.output = [];
  graph.input = [...graph.input, { name: pickInput, type: tensorType(dtypeCode('float32')) }];
  if (padded?.size) graph.input.push({ name: validInput, type: tensorType(dtypeCode('int64')) });
  for (const [i, probe] of probes.entries()) {
    const chain = bodies.get(probe.scope.path);
    if (!chain) throw new Error(`no body at ${probe.scope.path}`);
    addReductions(chain, probe, `resect/${i}`, opset, padded?.has(probe) ?? false);
  }
  return { ...model, irVersion: Math.max(Number(model.irVersion ?? 4), 4), graph };
}

/** Reads the outputs that `instrument` added for the probe at position `i`; undefined when it was not executed, or saw nothing. */
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
  const body = emptyGraph('reductions');
  let serial = 0;
  const emit = (
    opType: string,
    input: string[],
    attributes: AttributeProto[] = [],
    output = `${prefix}/${serial++}`,
  ) => {
    body.node.push(makeNode(opType, input, output, attributes));
    return output;
  };
  const constant = (t: TensorProto) => emit('Constant', [], [tensor('value', t)]);
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
  const { features: width } = probe;
  const outputs: Exposed[] = [
    { name: shape, dtype: 'int64', dims: [2] },
    { name: sum, dtype: 'float32', dims: [width] },
    { name: `${prefix}/centred`, dtype: 'float32', dims: [width] },
    { name: `${prefix}/rows`, dtype: 'float32' },
  ];
  if (probe.gram) {
    const own = width / probe.groups;
    const grouped = emit(
      'Transpose',
      [reshape(rows, [-1, probe.groups, own])],
      [ints('perm', [1, 0, 2])],
    );
    const turned = emit('Transpose', [grouped], [ints('perm', [0, 2, 1])]);
    const gram = emit('MatMul', [turned, grouped], [], `${prefix}/gram`);
    outputs.push({ name: gram, dtype: 'float32', dims: [probe.groups, own, own] });
  }
  // A detector may find nothing, and some kernels of the runtime divide by the number of rows.
  const [size, any] = [`${prefix}/size`, `${prefix}/any`];
  const owner: NodeProto = {
    ...makeNode('If', [any], prefix, [
      branch('then_branch', body),
      branch('else_branch', emptyGraph('reductions')),
    ]),
    output: [],
  };
  graph.node = [
    ...graph.node,
    makeNode('Size', [probe.value], size),
    makeNode('Cast', [size], any, [int('to', dtypeCode('bool'))]),
    owner,
  ];
  for (const output of outputs) expose([...chain, { graph: body, owner }], output);
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
    if (layout.axis === -2) {
      // Of unknown rank: made one of matrices [width, n] before each is turned.
      const n = emit('Gather', [emit('Shape', [x]), constant(int64Tensor([-1]))]);
      const matrices = emit('Concat', [constant(int64Tensor([-1, width])), n], [int('axis', 0)]);
      x = emit('Transpose', [emit('Reshape', [x, matrices])], [ints('perm', [0, 2, 1])]);
    }
    return reshape(x, [-1, width]);
  }
  // Patches are a depthwise convolution with one kernel per tap, so that the runtime's own
  // strides, dilations and padding apply. Order: channel, then tap, as in a flattened weight.
  const taps = layout.kernel.reduce((a, b) => a * b, 1);
  if (!isPointwise(layout.node, taps)) {
    if (layout.channels * taps * taps > largestTapKernel) {
      throw modelError(
        'The kernel of a convolution is too large to take statistics of what it sees.',
        {
          where: `node ${layout.node.name || opName(layout.node)}`,
          got: `${layout.channels} channels, kernel [${layout.kernel.join(', ')}]`,
          hint: 'Leave the layer out with --exclude, or choose a method that needs no data.',
        },
      );
    }
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

/** A value for the main graph to put out. */
interface Exposed {
  name: string;
  dtype: DType;
  /** Its shape, where every run has the same. */
  dims?: number[];
}

/** Hands a value of the innermost body up to the main graph; branches not taken put out zeros. */
function expose(chain: Body[], value: Exposed): void {
  const { name } = value;
  const type = tensorType(dtypeCode(value.dtype));
  for (let depth = chain.length - 1; depth >= 0; depth--) {
    const { graph, owner } = chain[depth];
    graph.output = [...graph.output, { name, type }];
    if (!owner) return;
    for (const { graph: other } of subgraphs(owner)) {
      if (other === graph) continue;
      other.node = [...other.node, ...zeros(`${name}/absent`, value)];
      other.output = [...other.output, { name: `${name}/absent`, type }];
    }
    owner.output = [...owner.output, name];
  }
}

/**
 * Nodes that put out zeros. Of the same shape as the value they stand for, because up to opset 10
 * branches must agree; made from an input, so that the runtime does not compute and keep them.
 */
function zeros(name: string, { dtype, dims }: Exposed): NodeProto[] {
  const part = (of: string) => `${name}/${of}`;
  const constant = (of: string, values: number[]) =>
    makeNode('Constant', [], part(of), [tensor('value', int64Tensor(values))]);
  return [
    constant('first', [0]),
    makeNode('Gather', [pickInput, part('first')], part('pick')),
    makeNode('Sub', [part('pick'), part('pick')], part('zero')),
    ...(dims
      ? [
          constant(
            'ones',
            dims.map(() => 1),
          ),
          makeNode('Reshape', [part('zero'), part('ones')], part('corner')),
          constant('dims', dims),
          makeNode('Tile', [part('corner'), part('dims')], part('zeros')),
        ]
      : []),
    makeNode('Cast', [part(dims ? 'zeros' : 'zero')], name, [int('to', dtypeCode(dtype))]),
  ];
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
