import { makeNode } from '../graph/build.js';
import {
  DTYPES,
  type DType,
  dtypeOf,
  encodeModel,
  type GraphProto,
  type ModelProto,
} from '../onnx/index.js';
import { withSession } from '../runtime/session.js';
import type { TensorType } from './tape.js';

/**
 * Element type and shape of every value of the main graph, as ONNX Runtime infers them: each is asked
 * for as an output, by name only. Values that are no tensors are left out.
 * @param model without large weights; the dims of its inputs are fixed
 */
export async function inferTypes(model: ModelProto): Promise<Map<string, TensorType>> {
  const graph = model.graph;
  if (!graph) throw new Error('a model without graph has no types');
  const types = new Map<string, TensorType>();
  for (const { name = '', dims, dataType } of graph.initializer)
    types.set(name, { dtype: dtypeOf(dataType), dims });
  const names = new Set([
    ...graph.input.map((v) => v.name ?? ''),
    ...graph.node.flatMap((node) => node.output).filter(Boolean),
  ]);
  // Inputs cannot be outputs as well.
  for (const { name = '', type } of graph.input) {
    names.delete(name);
    const dims = type?.tensorType?.shape?.dim.map((d) => Number(d.dimValue ?? -1));
    types.set(name, { dtype: dtypeOf(type?.tensorType?.elemType), dims });
  }
  for (const { name, dtype, dims } of await outputTypes({
    ...model,
    graph: { ...graph, valueInfo: [], output: [...names].map((name) => ({ name })) },
  })) {
    const known = dims.every((d): d is number => typeof d === 'number');
    types.set(name, {
      dtype: DTYPES.find((d) => d === dtype) ?? 'unknown',
      ...(known && { dims }),
    });
  }
  for (const name of await ofUnknownRank(model, types))
    types.set(name, { dtype: typeOf(types, name) });
  return types;
}

const outputTypes = (model: ModelProto) =>
  withSession(
    encodeModel(model),
    { threads: 1, optimization: 'disabled' },
    async ({ outputs }) => outputs,
  );

const typeOf = (types: ReadonlyMap<string, TensorType>, name: string): DType =>
  types.get(name)?.dtype ?? 'unknown';

/**
 * The runtime tells scalars and values of unknown rank by the same empty list. The shape of a scalar,
 * though, is known to have no elements.
 */
async function ofUnknownRank(
  model: ModelProto,
  types: ReadonlyMap<string, TensorType>,
): Promise<string[]> {
  const graph = model.graph as GraphProto;
  const produced = new Set(graph.node.flatMap((node) => node.output));
  const names = [...types.keys()].filter(
    (name) => produced.has(name) && types.get(name)?.dims?.length === 0,
  );
  if (names.length === 0) return [];
  const shapes = names.map((name) => makeNode('Shape', [name], `resect/rank/${name}`));
  const ranks = await outputTypes({
    ...model,
    graph: {
      ...graph,
      valueInfo: [],
      node: [...graph.node, ...shapes],
      output: shapes.map(({ output: [name] }) => ({ name })),
    },
  });
  return names.filter((_, i) => ranks[i]?.dims[0] !== 0);
}
