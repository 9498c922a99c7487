import type { ModelProto, NodeProto } from '../onnx/index.js';
import { allGraphs, mainGraph } from './bodies.js';
import { inlineFunctions } from './functions.js';
import { opName } from './nodes.js';

/** Ops that exist for integer arithmetic or integer storage only. */
const quantized =
  /^(com\.microsoft\.)?(QLinear\w+|QGemm|QAttention|QMoE|QEmbedLayerNormalization|QOrdered\w+|(Dynamic)?(Quantize|Dequantize)(Linear|MatMul|LSTM)|MatMulInteger(ToFloat)?|ConvInteger|MatMul(NBits|FpQ4|Bnb4)|GatherBlockQuantized)$/;

/** The first node, at any depth, that shows a model to be quantised. */
export function quantizedNode(model: ModelProto): NodeProto | undefined {
  for (const { node } of allGraphs(mainGraph(inlineFunctions(model)))) {
    const found = node.find((n) => quantized.test(opName(n)));
    if (found) return found;
  }
  return undefined;
}
