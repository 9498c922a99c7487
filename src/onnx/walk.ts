import type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  SparseTensorProto,
  TensorProto,
} from './schema.js';

/** Every tensor of a model, at any depth: initializers, attributes, functions, training graphs. */
export function* allTensors(
  model: ModelProto,
): Generator<{ tensor: TensorProto; initializer: boolean }> {
  if (model.graph) yield* graphTensors(model.graph);
  for (const { node, attributeProto = [] } of model.functions ?? []) {
    for (const attribute of attributeProto) yield* attributeTensors(attribute);
    yield* nodeTensors(node);
  }
  for (const { initialization, algorithm } of model.trainingInfo ?? []) {
    if (initialization) yield* graphTensors(initialization);
    if (algorithm) yield* graphTensors(algorithm);
  }
}
type Found = { tensor: TensorProto; initializer: boolean };

function* graphTensors(graph: GraphProto): Generator<Found> {
  for (const tensor of graph.initializer) yield { tensor, initializer: true };
  for (const sparse of graph.sparseInitializer ?? []) yield* sparseTensors(sparse);
  yield* nodeTensors(graph.node);
}

function* nodeTensors(nodes: readonly NodeProto[]): Generator<Found> {
  for (const { attribute } of nodes) for (const one of attribute) yield* attributeTensors(one);
}

function* attributeTensors(attribute: AttributeProto): Generator<Found> {
  const { t, g, sparseTensor, tensors = [], graphs = [], sparseTensors: sparses = [] } = attribute;
  for (const tensor of t ? [t, ...tensors] : tensors) yield { tensor, initializer: false };
  for (const sparse of sparseTensor ? [sparseTensor, ...sparses] : sparses)
    yield* sparseTensors(sparse);
  for (const graph of g ? [g, ...graphs] : graphs) yield* graphTensors(graph);
}

function* sparseTensors({ values, indices }: SparseTensorProto): Generator<Found> {
  if (values) yield { tensor: values, initializer: false };
  if (indices) yield { tensor: indices, initializer: false };
}
