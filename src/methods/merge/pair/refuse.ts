import { modelError } from '../../../errors.js';
import { intAttribute, isStandard, opName } from '../../../graph/nodes.js';
import { quantizedNode } from '../../../graph/quantized.js';
import {
  type ModelProto,
  type NodeProto,
  readInlineBytes,
  tensorInfo,
} from '../../../onnx/index.js';
import type { Step, Structure } from './structure.js';

/** Element types of weights in so few bits that what is between two of them can seldom be stored. */
const lowBit = /^(float8|float4|u?int[24]$)/;

const nodeText = (node: NodeProto) => `node ${node.name || node.output[0]} (${opName(node)})`;

/** @throws {ResectError} exit 5 when the model is quantised, naming the first node that shows it */
export function refuseQuantized(model: ModelProto): void {
  const found = quantizedNode(model);
  if (!found) return;
  throw modelError('The model is quantised, and blended weights cannot be integers.', {
    where: nodeText(found),
    expected: 'a model with float weights and no QuantizeLinear, DequantizeLinear or integer ops',
    hint: 'Start from the float models, and quantise the result.',
  });
}

/**
 * @throws {ResectError} exit 5 for weights of less than 16 bits and for ops in training mode, naming
 *   the tensor or the node
 */
export function refuseUnmergeable({ steps, constants }: Structure): void {
  for (const { name, tensor } of constants) {
    const { dtype } = tensorInfo(tensor);
    if (lowBit.test(dtype))
      throw modelError('The model is quantised: it has weights that cannot be blended.', {
        where: `tensor ${name}`,
        expected: 'float32, float64, float16 or bfloat16',
        got: dtype,
        hint: 'Start from the float models, and quantise the result.',
      });
  }
  for (const step of steps)
    if (isStandard(step.node) && isTraining(step))
      throw modelError('A node is in training mode.', {
        where: nodeText(step.node),
        hint: 'Export the model in evaluation mode (model.eval() in PyTorch).',
      });
}

function isTraining({ node, operands }: Step): boolean {
  if (node.opType === 'BatchNormalization')
    return intAttribute(node, 'training_mode', 0) !== 0 || node.output.slice(1).some(Boolean);
  const mode = node.opType === 'Dropout' ? operands[2] : undefined;
  return mode?.kind === 'constant' && readInlineBytes(mode.constant.tensor)?.[0] === 1;
}
