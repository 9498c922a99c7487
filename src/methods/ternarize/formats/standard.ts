import { int } from '../../../graph/build.js';
import type { Workspace } from '../../../graph/workspace.js';
import type { Model } from '../../../onnx/index.js';
import { keepOp } from './bias.js';
import {
  type ChooseCodes,
  refuseOffsets,
  replaceLayers,
  type StoredCodes,
  type WriteLayer,
} from './layers.js';
import { PackedStore } from './unpack.js';

/**
 * Packs codes five to a byte, behind standard ops that a runtime folds at load: about 1.6 bits a weight
 * and the scales in the file, floats in memory, and the speed of floats. Exact. The model is edited in
 * memory; it comes to opset 13.
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for ops without an equal in the opset; 2 for codes with offsets
 */
export const storePacked = (model: Model, choose: ChooseCodes): Promise<StoredCodes[]> =>
  replaceLayers(model, choose, (workspace) => floatWriter(workspace, new PackedStore(workspace)));

/** Writes a layer as its own op on floats that are unpacked at load. */
export function floatWriter(workspace: Workspace, store: PackedStore): WriteLayer {
  return async (layer, ternary) => {
    refuseOffsets(layer, ternary);
    const { nodes, values, bytes } = store.floats(layer, ternary);
    const { node, op } = layer;
    const others = node.attribute.filter(({ name }) => name !== 'transB');
    const change = {
      weight: values.weight,
      attribute: op === 'Gemm' ? [...others, int('transB', 1)] : node.attribute,
    };
    const [[, own], ...rest] = await keepOp(workspace, layer, change, ternary.bias);
    return {
      replaced: [[node, [...nodes, ...own]], ...rest],
      report: { kernel: 'float', bytes, values },
    };
  };
}
