import { modelError } from '../../errors.js';
import { opName } from '../../graph/nodes.js';
import type { ModelProto } from '../../onnx/index.js';
import { allGraphs, mainGraph } from './bodies.js';

/** Rounding has no gradient, and integer weights no place for an update. */
const quantized =
  /^((com\.microsoft\.)?(QLinear\w+|QGemm|QAttention|QMoE|QEmbedLayerNormalization|QOrdered\w+|(Dynamic)?(Quantize|Dequantize)(Linear|MatMul|LSTM)|MatMulInteger(ToFloat)?|ConvInteger|MatMul(NBits|FpQ4|Bnb4)|GatherBlockQuantized))$/;

/** @throws {ResectError} exit 5 when the model is quantised, naming the first node that shows it */
export function refuseQuantized(model: ModelProto): void {
  for (const { node } of allGraphs(mainGraph(model))) {
    const found = node.find((n) => quantized.test(opName(n)));
    if (!found) continue;
    throw modelError('A quantised model has no gradients.', {
      where: `node ${found.name || found.output[0]} (${opName(found)})`,
      expected: 'a model in float32, float64, float16 or bfloat16',
      hint: 'Work on the float model, and quantise the result.',
    });
  }
}
