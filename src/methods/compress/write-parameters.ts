import { makeNode } from '../../graph/build.js';
import { Workspace } from '../../graph/workspace.js';
import { encodeFloat32, type Model, type NodeProto, type TensorProto } from '../../onnx/index.js';

/** New values for a parameter of a node of the main graph, which may be of another shape. */
export interface ParameterValue {
  /** The node's first output. */
  output: string;
  /** Which of its inputs; one past those it has is added: the bias of a layer. */
  input: number;
  shape: readonly number[];
  values: Float64Array;
}

/** What took the place of tensors that several nodes read, by tensor. */
type Copies = Map<TensorProto, { name: string; shape: readonly number[]; bytes: Uint8Array }[]>;

/**
 * Stores parameters in the model, in place. One that no other node reads keeps its name, and all keep
 * their type; new ones are of the type of the node's weight. What several nodes read stays shared
 * among those of them for which it changes alike.
 */
export function writeParameters(model: Model, parameters: readonly ParameterValue[]): void {
  const workspace = new Workspace(model);
  const copies: Copies = new Map();
  const byNode = new Map<string, ParameterValue[]>();
  for (const parameter of parameters)
    byNode.set(parameter.output, [...(byNode.get(parameter.output) ?? []), parameter]);
  const nodes = workspace.graph.node.flatMap((node) => {
    const changed = byNode.get(node.output[0]);
    if (!changed) return [node];
    let written = node;
    const added: NodeProto[] = [];
    for (const parameter of changed) {
      const name = store(workspace, copies, node, parameter);
      if (node.opType === 'MatMul' && parameter.input === 2) {
        const product = workspace.names.fresh(`${node.output[0]}_product`);
        written = { ...written, output: [product] };
        added.push(makeNode('Add', [product, name], node.output[0]));
        continue;
      }
      const input = [...written.input];
      input[parameter.input] = name;
      written = { ...written, input };
    }
    return [written, ...added];
  });
  workspace.commit(nodes);
}

function store(
  workspace: Workspace,
  copies: Copies,
  node: NodeProto,
  { input, shape, values }: ParameterValue,
): string {
  const view = workspace.constant(node, input);
  const { dtype } = view ?? workspace.constant(node, 1) ?? { dtype: 'float32' as const };
  const bytes = encodeFloat32(Float32Array.from(values), dtype);
  const isOwn =
    view !== undefined &&
    workspace.constants.uses(view.tensor).length === 1 &&
    view.source.name === node.input[input] &&
    view.source.consumers.length === 1;
  if (isOwn) return workspace.store(view.source, dtype, shape, bytes);
  const made = view && (copies.get(view.tensor) ?? []);
  const same = made?.find(
    (copy) => copy.shape.join() === shape.join() && Buffer.compare(copy.bytes, bytes) === 0,
  );
  if (same) return same.name;
  const wanted = view ? view.tensor.name || view.source.name : `${node.input[1]}_bias`;
  const name = workspace.store(wanted, dtype, shape, bytes);
  if (made) copies.set(view.tensor, [...made, { name, shape, bytes }]);
  return name;
}
