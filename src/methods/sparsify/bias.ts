import { Constants, isView } from '../../graph/constants.js';
import { Graph } from '../../graph/graph.js';
import type { LinearLayer } from '../../graph/linear-layers.js';
import { floatAttribute, isStandard } from '../../graph/nodes.js';
import {
  decodeFloat32,
  encodeFloat32,
  type GraphProto,
  type Model,
  type ModelProto,
  makeTensor,
  type NodeProto,
  tensorInfo,
} from '../../onnx/index.js';

/** What became of a layer's bias: how to change it, or why it stays. */
export type BiasChange = { apply: () => void } | { reason: string };

/**
 * The change that adds to a layer's bias what pruning took from its mean output: b += (W - W')·E[x].
 * A bias that only this layer reads is changed in place; a layer without one gets one.
 *
 * @param proto the model with local functions inlined, which `layer` was found in
 * @param shift [out] (W - W')·E[x]
 */
export function correctBias(
  model: Model,
  proto: ModelProto,
  layer: LinearLayer,
  shift: Float64Array,
): BiasChange {
  const { node, op, scope, alpha } = layer;
  const weightIsRight = node.input.indexOf(layer.input) === 0;
  const values = Float32Array.from(shift, (s) => s * alpha);
  if (/Conv$|Gemm$|Attention$/.test(op)) {
    const beta = /Gemm$/.test(op) ? floatAttribute(node, 'beta', 1) : 1;
    if (beta === 0) return { reason: 'its bias is switched off (beta 0)' };
    const scaled = values.map((v) => v / beta);
    if (node.input[2]) return changeStored(model, proto, layer, node, 2, scaled);
    if (model.proto !== proto) return { reason: 'it has no bias, and stands in a local function' };
    return {
      apply: () => {
        node.input[2] = addInitializer(scope.graph, layer, scaled, weightIsRight);
      },
    };
  }
  const add = soleAddition(proto, layer);
  if (add && weightIsRight) return changeStored(model, proto, layer, add.node, add.index, values);
  if (model.proto !== proto) return { reason: 'it has no bias, and stands in a local function' };
  return { apply: () => insertAddition(scope.graph, layer, values, weightIsRight) };
}

/** The Add of a constant that is all that reads the layer's output. */
function soleAddition(
  proto: ModelProto,
  { node, scope }: LinearLayer,
): { node: NodeProto; index: number } | undefined {
  const graph = new Graph(proto);
  const constants = new Constants(graph);
  const own = graph.scopes.find((s) => s.path === scope.path);
  const value = own?.values.get(node.output[0]);
  const [use] = value?.consumers ?? [];
  if (!value || value.isOutput || value.consumers.length !== 1) return undefined;
  if (!isStandard(use.node) || use.node.opType !== 'Add') return undefined;
  const index = 1 - use.index;
  const other = graph.input(use.scope, use.node, index);
  return other && isView(constants.trace(other)) ? { node: use.node, index } : undefined;
}

function changeStored(
  model: Model,
  proto: ModelProto,
  layer: LinearLayer,
  reader: NodeProto,
  index: number,
  values: Float32Array,
): BiasChange {
  const graph = new Graph(proto);
  const constants = new Constants(graph);
  const scope = graph.scopes.find((s) => s.path === layer.scope.path);
  const bias = scope && graph.input(scope, reader, index);
  const view = bias && constants.trace(bias);
  if (!isView(view) || view.dequantization) return { reason: 'its bias is not a stored tensor' };
  const { dtype, elements } = tensorInfo(view.tensor);
  if (elements !== values.length || !/^b?float/.test(dtype))
    return { reason: `its bias is ${dtype} of another length` };
  if (constants.uses(view.tensor).length !== 1 || constants.isOutput(view.tensor)) {
    return { reason: 'its bias is shared with another node' };
  }
  return {
    apply: () =>
      void model.edits.set(view.tensor, (raw) =>
        encodeFloat32(
          decodeFloat32(raw, dtype).map((b, i) => b + values[i]),
          dtype,
        ),
      ),
  };
}

/** Adds a bias to the body that holds the layer; returns its name. */
function addInitializer(
  graph: GraphProto,
  layer: LinearLayer,
  values: Float32Array,
  weightIsRight: boolean,
): string {
  const name = `${layer.node.output[0]}/resect_bias`;
  const dtype = layer.weight?.view.dtype ?? 'float32';
  graph.initializer.push(
    makeTensor({
      name,
      dtype,
      shape: weightIsRight || /Conv$/.test(layer.op) ? [values.length] : [values.length, 1],
      bytes: encodeFloat32(values, dtype),
    }),
  );
  return name;
}

/** Puts an Add behind the layer. The sum takes over the name, so that readers need no change. */
function insertAddition(
  graph: GraphProto,
  layer: LinearLayer,
  values: Float32Array,
  weightIsRight: boolean,
): void {
  const { node } = layer;
  const output = node.output[0];
  const product = `${output}/resect_product`;
  node.output[0] = product;
  graph.node.splice(graph.node.indexOf(node) + 1, 0, {
    name: `${output}/resect_bias_add`,
    opType: 'Add',
    input: [
      product,
      addInitializer(
        graph,
        { ...layer, node: { ...node, output: [output] } },
        values,
        weightIsRight,
      ),
    ],
    output: [output],
    attribute: [],
  });
}
