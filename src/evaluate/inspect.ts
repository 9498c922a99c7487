import { inlineFunctions } from '../graph/functions.js';
import { Graph } from '../graph/graph.js';
import { modelInputs, modelOutputs, type Port } from '../graph/interface.js';
import { findLinearLayers, type LinearLayer } from '../graph/linear-layers.js';
import { opName } from '../graph/nodes.js';
import { readMatrix } from '../graph/weight-matrix.js';
import { allTensors, type Model, tensorInfo } from '../onnx/index.js';
import { countZeros, largestRead, measureSize, type SizeMeasure } from './measure.js';

export interface LinearLayerSummary {
  name: string;
  op: string;
  /** [out, in] */
  shape?: [number, number];
  dtype?: string;
  /** Fraction of zeros; absent when weights were not read. */
  zeros?: number;
  /** Why methods that edit weights leave it alone. */
  skip?: string;
  isHead: boolean;
}

export interface Inspection {
  path: string;
  irVersion?: number;
  producer?: string;
  opsets: Record<string, number>;
  inputs: Port[];
  outputs: Port[];
  /** How often each op occurs, bodies included, functions expanded. */
  ops: Record<string, number>;
  nodes: number;
  functions: number;
  /** Stored tensors by dtype. */
  tensors: Record<string, { count: number; elements: number; bytes: number }>;
  size: SizeMeasure;
  externalFiles: string[];
  layers: LinearLayerSummary[];
  metadata: Record<string, string>;
}

/**
 * What is in a model, from its file alone; the runtime is not needed.
 * @param readWeights whether to read every weight, for zeros and the gzipped size
 */
export async function inspectModel(
  model: Model,
  readWeights = model.sizeBytes <= largestRead,
): Promise<Inspection> {
  const { proto } = model;
  const graph = new Graph(inlineFunctions(proto));
  const ops = new Map<string, number>();
  let nodes = 0;
  for (const { graph: body } of graph.scopes) {
    for (const node of body.node) {
      const op = opName(node);
      ops.set(op, (ops.get(op) ?? 0) + 1);
      nodes++;
    }
  }
  const tensors: Inspection['tensors'] = {};
  for (const { tensor } of allTensors(proto)) {
    const { dtype, elements, byteLength } = tensorInfo(tensor);
    tensors[dtype] ??= { count: 0, elements: 0, bytes: 0 };
    tensors[dtype].count++;
    tensors[dtype].elements += elements;
    tensors[dtype].bytes += byteLength;
  }
  const layers: LinearLayerSummary[] = [];
  for (const layer of findLinearLayers(graph))
    layers.push(await summarize(model, layer, readWeights));
  return {
    path: model.path ?? '',
    irVersion: proto.irVersion,
    producer: [proto.producerName, proto.producerVersion].filter(Boolean).join(' ') || undefined,
    opsets: Object.fromEntries(
      proto.opsetImport.map((o) => [o.domain || 'ai.onnx', o.version ?? 0]),
    ),
    inputs: modelInputs(proto),
    outputs: modelOutputs(proto),
    ops: Object.fromEntries(ops),
    nodes,
    functions: proto.functions?.length ?? 0,
    tensors,
    size: await measureSize(model, readWeights, readWeights),
    externalFiles: model.externalFiles(),
    layers,
    metadata: Object.fromEntries(
      (proto.metadataProps ?? []).map((p) => [p.key ?? '', p.value ?? '']),
    ),
  };
}

async function summarize(
  model: Model,
  layer: LinearLayer,
  readWeights: boolean,
): Promise<LinearLayerSummary> {
  const { name, op, weight, skip, isHead } = layer;
  if (!weight) return { name, op, skip, isHead };
  const { dtype, place } = tensorInfo(weight.view.tensor);
  const readable = readWeights && place !== 'empty' && /^(b?float|u?int)/.test(dtype);
  return {
    name,
    op,
    shape: [weight.rows, weight.cols],
    dtype,
    ...(readable && {
      zeros: countZeros(await readMatrix(model, weight)) / (weight.rows * weight.cols),
    }),
    skip,
    isHead,
  };
}
