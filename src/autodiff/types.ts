import { DTYPES, dtypeOf, encodeModel, type ModelProto } from '../onnx/index.js';
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
  const probe = {
    ...model,
    graph: { ...graph, valueInfo: [], output: [...names].map((name) => ({ name })) },
  };
  await withSession(
    encodeModel(probe),
    { threads: 1, optimization: 'disabled' },
    async (session) => {
      for (const { name, dtype, dims } of session.outputs) {
        const known = dims.every((d): d is number => typeof d === 'number');
        types.set(name, {
          dtype: DTYPES.find((d) => d === dtype) ?? 'unknown',
          ...(known && { dims }),
        });
      }
    },
  );
  return types;
}
