import { allGraphs, mainGraph } from '../../../autodiff/normalize/bodies.js';
import { modelError } from '../../../errors.js';
import { inlineFunctions } from '../../../graph/functions.js';
import { opName } from '../../../graph/nodes.js';
import type { ModelProto } from '../../../onnx/index.js';

/** Ops that exist for integer arithmetic or integer storage only. */
const quantized =
  /^(com\.microsoft\.)?(QLinear\w+|QGemm|QAttention|QMoE|QEmbedLayerNormalization|QOrdered\w+|(Dynamic)?(Quantize|Dequantize)(Linear|MatMul|LSTM)|MatMulInteger(ToFloat)?|ConvInteger|MatMul(NBits|FpQ4|Bnb4)|GatherBlockQuantized)$/;

/**
 * To round what was rounded before would lose accuracy twice.
 * @throws {ResectError} exit 5 when the model is quantised, naming the first node that shows it
 */
export function refuseQuantized(model: ModelProto): void {
  for (const { node } of allGraphs(mainGraph(inlineFunctions(model)))) {
    const found = node.find((n) => quantized.test(opName(n)));
    if (!found) continue;
    throw modelError('The model is quantised already.', {
      where: `node ${found.name || found.output[0]} (${opName(found)})`,
      expected: 'a model with float weights and no QuantizeLinear, DequantizeLinear or integer ops',
      hint: 'Start from the float model.',
    });
  }
}
