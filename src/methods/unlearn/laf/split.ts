import { modelError, usageError } from '../../../errors.js';
import { mainGraph } from '../../../graph/bodies.js';
import { bottlenecks, nodesTo } from '../../../graph/bottlenecks.js';
import { Constants } from '../../../graph/constants.js';
import { inlineFunctions } from '../../../graph/functions.js';
import { Graph } from '../../../graph/graph.js';
import { floatOutput, modelOutputs } from '../../../graph/interface.js';
import { findLinearLayers } from '../../../graph/linear-layers.js';
import { opName } from '../../../graph/nodes.js';
import { findParameters } from '../../../graph/parameters.js';
import { rootNode } from '../../../graph/segments.js';
import { topologicalOrder } from '../../../graph/topology.js';
import {
  isFloat,
  type Model,
  type ModelProto,
  type NodeProto,
  type TensorProto,
  tensorInfo,
} from '../../../onnx/index.js';
import { exampleShapes } from '../../example-shapes.js';
import type { Calibration } from '../../method.js';

/** Widths of representations that LAF is for. */
const widths = { least: 8, most: 4096 };

/** A value at which a model may be cut in an extractor of representations and a classifier of them. */
export interface Split {
  value: string;
  /** Numbers in a representation. */
  width: number;
  /** The op that computes it. */
  op: string;
  /** Tensors of the parameters on each side; some may be on both. */
  extractor: ReadonlySet<TensorProto>;
  classifier: ReadonlySet<TensorProto>;
}

/** Where a model may be cut, in the order in which it computes, and the place that is best by default. */
export interface Splits {
  candidates: Split[];
  chosen: Split;
}

/**
 * The places to cut a model: values that everything passes on its way to the output, of one vector per
 * example, with parameters before and behind them. The default is what the last linear layer reads.
 * @param wanted a value, or a node whose first output is meant
 * @param examples data to take the sizes of inputs from
 * @throws {ResectError} exit 5 when there is none, exit 2 when `wanted` is none
 */
export async function findSplits(
  model: Model,
  wanted?: string,
  examples?: Calibration,
): Promise<Splits> {
  const proto = inlineFunctions(model.proto);
  const output = floatOutput(proto);
  const { shapes, examples: batch } = await exampleShapes(model, examples, proto);
  const main = mainGraph(proto);
  const producers = new Map(
    main.node.flatMap((node) => node.output.map((o) => [o, node] as const)),
  );
  const vector = (value: string): number | undefined => {
    const type = shapes.get(value);
    const dims = type?.dims;
    if (!dims || !isFloat(type.dtype) || dims.length < 2 || dims[0] !== batch) return undefined;
    const [, ...own] = dims;
    const width = own.reduce((a, b) => a * b, 1);
    const wide = own.filter((d) => d > 1).length === 1;
    return wide && width >= widths.least && width <= widths.most ? width : undefined;
  };
  const read = parametersReadBy(proto);
  const necks = bottlenecks(main, output);
  const candidates = necks.flatMap((value): Split[] => {
    const width = vector(value);
    const producer = producers.get(value);
    if (width === undefined || !producer) return [];
    const extractor = read(nodesTo(main, value));
    const classifier = read(nodesTo(main, output, value));
    if (extractor.size === 0 || classifier.size === 0) return [];
    return [{ value, width, op: opName(producer), extractor, classifier }];
  });
  if (candidates.length === 0) {
    throw modelError('The model has no place at which it may be cut in two.', {
      where: `the way to output "${output}"`,
      expected: `a vector of ${widths.least} to ${widths.most} numbers for each example that everything passes, with parameters before and behind it`,
      got: necks.length === 0 ? 'no value that everything passes' : describe(necks, shapes),
      hint: 'LAF works on representations; `resect unlearn ssd` needs none.',
    });
  }
  if (wanted === undefined) return { candidates, chosen: byDefault(proto, output, candidates) };
  const named = main.node.find(({ name }) => name === wanted)?.output[0];
  const chosen = candidates.find(({ value }) => value === wanted || value === named);
  if (chosen) return { candidates, chosen };
  const type = shapes.get(named ?? wanted);
  throw usageError('The model cannot be cut there.', {
    where: `--split ${wanted}`,
    expected: candidates.map(({ value }) => value).join(', '),
    got: !type
      ? 'no value or node of that name'
      : necks.includes(named ?? wanted)
        ? `${type.dtype} [${type.dims?.join(', ') ?? '?'}], or no parameters on one side`
        : 'a value that something flows past',
    hint: 'Look at the places to choose from with --dry-run.',
  });
}

/** What the last linear layer on the way to the output reads, or what comes closest before that. */
function byDefault(proto: ModelProto, output: string, candidates: readonly Split[]): Split {
  const way = nodesTo(mainGraph(proto), output);
  const layers = new Set(findLinearLayers(new Graph(proto)).map(({ node }) => node));
  const order = topologicalOrder(mainGraph(proto));
  const last = order.findLastIndex((node) => layers.has(node) && way.has(node));
  const before = new Set(order.slice(0, Math.max(last, 0)).flatMap((node) => node.output));
  return candidates.findLast(({ value }) => before.has(value)) ?? candidates[candidates.length - 1];
}

/** Tells which of a model's parameters some nodes of its main graph read. */
function parametersReadBy(proto: ModelProto): (nodes: ReadonlySet<NodeProto>) => Set<TensorProto> {
  const graph = new Graph(proto);
  const constants = new Constants(graph);
  const parameters = findParameters(graph, constants).flatMap(({ tensor, skip }) =>
    skip === undefined ? [{ tensor, readers: constants.uses(tensor).map(rootNode) }] : [],
  );
  return (nodes) =>
    new Set(
      parameters.flatMap(({ tensor, readers }) =>
        readers.some((node) => nodes.has(node)) ? [tensor] : [],
      ),
    );
}

type Shapes = Awaited<ReturnType<typeof exampleShapes>>['shapes'];

const describe = (values: readonly string[], shapes: Shapes): string =>
  values
    .slice(-4)
    .map((value) => `${value} [${shapes.get(value)?.dims?.join(', ') ?? '?'}]`)
    .join('; ');

export const countElements = (tensors: Iterable<TensorProto>): number =>
  [...tensors].reduce((sum, tensor) => sum + tensorInfo(tensor).elements, 0);

/** The splits as a user reads them, in a plan. */
export function splitNotes({ candidates, chosen }: Splits): string[] {
  const line = ({ value, width, op, extractor, classifier }: Split) =>
    `"${value}" (${op}, ${width} numbers; ${countElements(extractor)} parameters before, ${countElements(classifier)} behind)`;
  const others = candidates.filter((split) => split !== chosen);
  return [
    `representations are read at ${line(chosen)}`,
    ...(others.length > 0 ? [`--split may name ${others.map(line).join('; ')}`] : []),
  ];
}

/** Outputs besides the one that is cut to which the extractor has an influence on: they change with it. */
export function otherOutputs(model: Model, { extractor }: Split): string[] {
  const proto = inlineFunctions(model.proto);
  const output = floatOutput(proto);
  const read = parametersReadBy(proto);
  return modelOutputs(proto).flatMap(({ name }) =>
    name !== output && [...read(nodesTo(mainGraph(proto), name))].some((t) => extractor.has(t))
      ? [name]
      : [],
  );
}
