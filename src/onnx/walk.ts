import type {
  AttributeProto,
  GraphProto,
  ModelProto,
  NodeProto,
  SparseTensorProto,
  TensorProto,
} from './schema.js';

interface FoundTensor {
  tensor: TensorProto;
  /** Whether it is a constant of a graph: an initializer or the value of a `Constant` node. */
  constant: boolean;
}

/** Every tensor of a model, at any depth: initializers, attributes, functions, training graphs. */
export function* allTensors(model: ModelProto): Generator<FoundTensor> {
  if (model.graph) yield* graphTensors(model.graph);
  for (const { node, attributeProto = [] } of model.functions ?? []) {
    for (const attribute of attributeProto) yield* attributeTensors(attribute, false);
    yield* nodeTensors(node);
  }
  for (const { initialization, algorithm } of model.trainingInfo ?? []) {
    if (initialization) yield* graphTensors(initialization);
    if (algorithm) yield* graphTensors(algorithm);
  }
}

function* graphTensors(graph: GraphProto): Generator<FoundTensor> {
  for (const tensor of graph.initializer) yield { tensor, constant: true };
  for (const sparse of graph.sparseInitializer ?? []) yield* sparseTensors(sparse);
  yield* nodeTensors(graph.node);
}

function* nodeTensors(nodes: readonly NodeProto[]): Generator<FoundTensor> {
  for (const { opType, domain, attribute } of nodes) {
    const constant = opType === 'Constant' && (!domain || domain === 'ai.onnx');
    for (const one of attribute) yield* attributeTensors(one, constant);
  }
}

function* attributeTensors(attribute: AttributeProto, constant: boolean): Generator<FoundTensor> {
  const { t, tensors = [], sparseTensor, sparseTensors: sparses = [], g, graphs = [] } = attribute;
  for (const tensor of t ? [t, ...tensors] : tensors) yield { tensor, constant };
  for (const sparse of sparseTensor ? [sparseTensor, ...sparses] : sparses)
    yield* sparseTensors(sparse);
  for (const graph of g ? [g, ...graphs] : graphs) yield* graphTensors(graph);
}

function* sparseTensors({ values, indices }: SparseTensorProto): Generator<FoundTensor> {
  if (values) yield { tensor: values, constant: false };
  if (indices) yield { tensor: indices, constant: false };
}
