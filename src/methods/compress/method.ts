import type { Method } from '../method.js';
import { type CompressLayer, columns } from './layers.js';
import { checkCombination, parameters } from './parameters.js';

export const compress: Method<typeof parameters, CompressLayer> = {
  name: 'compress',
  summary: 'Remove channels and round weights, and repair what was lost, without any data (UDFC).',
  references: [
    {
      title: 'Unified Data-Free Compression: Pruning and Quantization without Fine-Tuning (UDFC)',
      arxiv: '2308.07209',
    },
    {
      title: 'Neuron Merging: Compensating for Pruned Neurons',
      arxiv: '2010.13160',
    },
    {
      title: 'GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers',
      arxiv: '2210.17323',
    },
    { title: 'DepGraph: Towards Any Structural Pruning', arxiv: '2301.12900' },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> compress model.onnx -o small.onnx --ratio 0.3 --bits 8',
    '<%= config.bin %> compress model.onnx -o small.onnx --ratio 0.5 --bits 8 --calib images --eval test.yaml',
    "<%= config.bin %> compress model.onnx -o small.onnx --ratio 0.5 --layer-ratio 'stem*=0' --align 16",
    '<%= config.bin %> compress model.onnx -o small.onnx --bits 4 --format weight-only',
    '<%= config.bin %> compress model.onnx -o small.onnx --bits auto --max-drop accuracy=0.01 --eval test.yaml',
    '<%= config.bin %> compress model.onnx --ratio 0.5 --dry-run',
  ],

  needs: () => ({ calibration: 'optional' }),

  async plan(model, given, { selects }) {
    checkCombination(given);
    const { planCompression } = await import('./plan.js');
    return { layers: await planCompression(model, given, selects), notes: [] };
  },

  async apply(model, given, context) {
    checkCombination(given);
    // Loaded here, so that help needs no runtime.
    const { compressModel } = await import('./compress.js');
    return compressModel(model, given, context);
  },
};
