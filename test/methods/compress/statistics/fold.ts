import { Constants } from '../../../../src/graph/constants.js';
import { Graph } from '../../../../src/graph/graph.js';
import { outputAffine } from '../../../../src/methods/compress/maths/batch-norm.js';
import { readLayer, storedWeights } from '../../../../src/methods/compress/statistics/layers.js';
import { Model, makeTensor, type TensorProto } from '../../../../src/onnx/index.js';

/** The model with every BatchNormalization behind a convolution folded into it. */
export async function foldNorms(source: Model): Promise<Model> {
  const graph = new Graph(source.proto);
  const constants = new Constants(graph);
  const gone = new Set<string>();
  const added: TensorProto[] = [];
  const node = [];
  const renamed = new Map<string, string>();
  const store = (name: string, shape: number[], values: Float64Array) =>
    added.push(
      makeTensor({
        name,
        dtype: 'float32',
        shape,
        bytes: new Uint8Array(Float32Array.from(values).buffer),
      }),
    );
  for (const n of source.proto.graph!.node) {
    if (n.opType === 'BatchNormalization') continue;
    if (n.opType !== 'Conv') {
      node.push(n);
      continue;
    }
    const { layer, storage, output } = await readLayer({ model: source, graph, constants }, n);
    const { filters, norm, bias } = layer;
    const { scale, shift } = outputAffine(filters.outputs, norm, bias);
    const width = filters.weights.length / filters.outputs;
    const weights = filters.weights.map((w, k) => w * scale[Math.floor(k / width)]);
    const stored = storedWeights(storage, { ...filters, weights });
    gone.add(n.input[1]);
    store(n.input[1], stored.dims, stored.values);
    store(`${n.input[1]}.bias`, [filters.outputs], shift);
    renamed.set(n.output[0], output);
    node.push({ ...n, input: [n.input[0], n.input[1], `${n.input[1]}.bias`], output: [output] });
  }
  const initializer = source.proto.graph!.initializer.filter((t) => !gone.has(t.name!));
  return new Model({
    ...source.proto,
    graph: { ...source.proto.graph!, node, initializer: [...initializer, ...added] },
  });
}
