import { modelError } from '../../errors.js';
import { opName } from '../../graph/nodes.js';
import { quantizedNode } from '../../graph/quantized.js';
import type { ModelProto } from '../../onnx/index.js';

/**
 * Rounding has no gradient, and integer weights no place for an update.
 * @throws {ResectError} exit 5 when the model is quantised, naming the first node that shows it
 */
export function refuseQuantized(model: ModelProto): void {
  const found = quantizedNode(model);
  if (!found) return;
  throw modelError('A quantised model has no gradients.', {
    where: `node ${found.name || found.output[0]} (${opName(found)})`,
    expected: 'a model in float32, float64, float16 or bfloat16',
    hint: 'Work on the float model, and quantise the result.',
  });
}
