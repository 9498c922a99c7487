import { modelError } from '../../../errors.js';
import { opName } from '../../../graph/nodes.js';
import { quantizedNode } from '../../../graph/quantized.js';
import type { ModelProto } from '../../../onnx/index.js';

/**
 * To round what was rounded before would lose accuracy twice.
 * @throws {ResectError} exit 5 when the model is quantised, naming the first node that shows it
 */
export function refuseQuantized(model: ModelProto): void {
  const found = quantizedNode(model);
  if (!found) return;
  throw modelError('The model is quantised already.', {
    where: `node ${found.name || found.output[0]} (${opName(found)})`,
    expected: 'a model with float weights and no QuantizeLinear, DequantizeLinear or integer ops',
    hint: 'Start from the float model.',
  });
}
