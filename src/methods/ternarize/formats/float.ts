import { replaceEdit } from '../../../graph/weight-matrix.js';
import type { Model, TensorProto } from '../../../onnx/index.js';
import { decodeRow } from '../maths/codes.js';
import { keepOp } from './bias.js';
import { type ChooseCodes, replaceLayers, type StoredCodes } from './layers.js';

/**
 * Stores what codes and scales stand for as the floats that weights were, to study what it costs: the
 * file gets neither smaller nor faster. A tensor that several layers read becomes what the first says.
 * The model is edited in memory; it comes to opset 13.
 * @returns each layer, in file order
 * @throws {ResectError} exit 5 for ops without an equal in the opset
 */
export const storeFloats = (model: Model, choose: ChooseCodes): Promise<StoredCodes[]> =>
  replaceLayers(model, choose, (workspace) => {
    const stored = new Set<TensorProto>();
    return async (layer, { codes, bias }) => {
      const { tensor } = layer.weight.view;
      if (!stored.has(tensor)) {
        const values = new Float32Array(codes.rows * codes.cols);
        for (let row = 0; row < codes.rows; row++)
          decodeRow({ ...codes, shared: false }, row, values, row * codes.cols);
        model.edits.set(tensor, await replaceEdit(model, layer.weight, values));
        stored.add(tensor);
      }
      const replaced = await keepOp(workspace, layer, { weight: layer.node.input[1] }, bias);
      return { replaced, report: { kernel: 'float' } };
    };
  });
