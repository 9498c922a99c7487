import { inlineFunctions } from '../../graph/functions.js';
import { Graph } from '../../graph/graph.js';
import type { Method } from '../method.js';
import { columns, type TernarizeLayer } from './layers.js';
import { parameters, settle } from './parameters.js';
import { planLayers } from './plan.js';

export const ternarize: Method<typeof parameters, TernarizeLayer> = {
  name: 'ternarize',
  summary: 'Make weights ternary, pack them at two bits, and repair what was lost with a bias.',
  references: [
    {
      title: 'Tequila: Trapping-free Ternary Quantization for Large Language Models',
      arxiv: '2509.23809',
    },
    { title: 'Ternary Weight Networks', arxiv: '1605.04711' },
    {
      title: 'The Era of 1-bit LLMs: All Large Language Models are in 1.58 Bits',
      arxiv: '2402.17764',
    },
    {
      title: 'GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers',
      arxiv: '2210.17323',
    },
    {
      title: 'PT2-LLM: Post-Training Ternarization for Large Language Models',
      arxiv: '2510.03267',
    },
  ],
  parameters,
  columns,
  examples: [
    '<%= config.bin %> ternarize model.onnx -o small.onnx --calib train.npz',
    '<%= config.bin %> ternarize model.onnx -o small.onnx --calib text.jsonl --tokenizer tokenizer.json --eval test.jsonl',
    '<%= config.bin %> ternarize model.onnx -o small.onnx --calib train.npz --eval test.npz --mixed auto --max-drop accuracy=0.01',
    '<%= config.bin %> ternarize model.onnx -o small.onnx --calib train.npz --format auto --batch 32',
    '<%= config.bin %> ternarize model.onnx -o small.onnx --calib train.npz --levels 4',
    '<%= config.bin %> ternarize model.onnx --dry-run',
  ],

  needs: ({ method, bias, mixed }) => ({
    calibration:
      (method && method !== 'fit') || bias === 'full' || bias === 'dead' || mixed
        ? 'required'
        : 'optional',
  }),

  plan(model, given, { selects }) {
    // What data would settle is not looked at here.
    const settings = settle(given, true);
    const graph = new Graph(inlineFunctions(model.proto));
    const planned = planLayers(graph, settings, selects);
    return { layers: planned.map(({ report }) => report), notes: [] };
  },

  async apply(model, given, context) {
    const settings = settle(given, context.calibration !== undefined);
    // Loaded here, so that plans and help need no runtime.
    const { ternarizeModel } = await import('./ternarize.js');
    return ternarizeModel(model, given, settings, context);
  },
};
