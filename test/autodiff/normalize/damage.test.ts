import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { normalize } from '../../../src/autodiff/normalize/index.js';
import { ResectError } from '../../../src/errors.js';
import { float, int, ints, makeNode } from '../../../src/graph/build.js';
import { encodeModel, parseModel, readModel } from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { badModels } from '../../support/malformed-models.js';
import { mutate, mutations, skeleton } from '../../support/mutations.js';
import { weight } from '../../support/protos.js';
import { feed, floatList, modelOf } from './helpers.js';

const standard =
  `BatchNormalization Clip Dropout Pad Resize Slice Softmax Split Squeeze TopK Upsample
  GroupNormalization RMSNormalization MeanVarianceNormalization Gelu Celu Shrink Attention
  RotaryEmbedding`.split(/\s+/);
const fused = `FusedConv FusedGemm FusedMatMul BiasGelu FastGelu SkipLayerNormalization Attention
  SkipSimplifiedLayerNormalization EmbedLayerNormalization MultiHeadAttention RotaryEmbedding`.split(
  /\s+/,
);

/** A model of one node, with attributes of all kinds, whether it makes sense or not. */
function modelOfOp(opset: number, opType: string, domain: string): Uint8Array {
  const attributes = [
    int('axis', 1),
    int('num_groups', 2),
    int('num_heads', 2),
    int('q_num_heads', 4),
    int('kv_num_heads', 2),
    int('transA', 1),
    int('unidirectional', 1),
    int('interleaved', 1),
    ints('axes', [0]),
    ints('qkv_hidden_sizes', [2, 2, 4]),
    float('epsilon', 0.1),
    floatList('scales', [1, 2]),
  ];
  const nodes = [makeNode(opType, ['x', 'w', 'g', 'b'], 'y', attributes, domain)];
  const initializers = [weight('w', [8, 8]), weight('g', [8]), weight('b', [8])];
  return encodeModel(modelOf({ opset, nodes, feeds: { x: feed([2, 3, 8]) }, initializers }));
}

/** Anything but an error that a user can act on is thrown. */
async function tolerate(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof ResectError)) throw error;
  }
}

const silero = 'node_modules/@ricky0123/vad-web/dist/silero_vad_v5.onnx';
const ops = [9, 23].flatMap((opset) => [
  ...standard.map((op) => modelOfOp(opset, op, '')),
  ...fused.map((op) => modelOfOp(opset, op, 'com.microsoft')),
]);
const models: [string, () => Uint8Array[], number][] = [
  ['resnet8', () => [skeleton(inRepository('fixtures/resnet8/resnet8.onnx'))], 100],
  ['a voice detector', () => [skeleton(inRepository(silero))], 100],
  ['a model of one op', () => ops, 3000],
];

test.each(models)('any change of %s is treated or refused', async (_, make, numRuns) => {
  const originals = fc.constantFrom(...make());
  await fc.assert(
    fc.asyncProperty(originals, mutations, (original, changes) =>
      tolerate(async () => normalize(parseModel(mutate(original, changes)))),
    ),
    { numRuns },
  );
});

test('malformed models are treated or refused', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'resect-damage-'));
  try {
    for (const [i, bad] of badModels.entries()) {
      const own = join(folder, String(i));
      mkdirSync(own);
      bad.make(own);
      await tolerate(async () => normalize(await readModel(join(own, 'model.onnx'))));
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
