import { givenBits } from '../../../src/methods/compress/bits.js';
import { readNetwork, wishes } from '../../../src/methods/compress/network.js';
import {
  checkCombination,
  formatOf,
  parameters,
  selectionOf,
} from '../../../src/methods/compress/parameters.js';
import { layerMatcher } from '../../../src/methods/layer-globs.js';
import { encodeModel, parseModel } from '../../../src/onnx/index.js';
import type { Given } from './support.js';
import { member } from './zoo.js';

const all = () => true;

test.each<Given>([
  { ratio: 1 },
  { ratio: -0.1 },
  { ratio: Number.NaN },
  { bits: 1 },
  { bits: 17 },
  { bits: 8.5 },
  { bits: 31 },
  { bits: 'many' },
  { edgeBits: 32 },
  { align: 0 },
  { align: 1.5 },
  { alpha1: -1 },
  { layerRatio: ['0.5'] },
  { layerRatio: ['conv=1'] },
  { layerRatio: ['conv=.5.5'] },
  { layerBits: ['conv=17'] },
])('%j is no parameter', (given) => {
  expect(parameters.safeParse(given).success).toBe(false);
});

test.each<[Given, RegExp]>([
  [{ bits: 9, format: 'qdq' }, /more than 8 bits/],
  [{ bits: 16, format: 'weight-only' }, /more than 8 bits/],
  [{ bits: 4, layerBits: ['conv=12'] }, /more than 8 bits/],
  [{ bits: 8, edgeBits: 10 }, /more than 8 bits/],
  [{ bits: 8, quantScale: true }, /UDFC/],
  [{ bits: 8, quantScale: true, method: 'drop' }, /UDFC/],
])('%j exclude each other', (given, says) => {
  expect(() => checkCombination(parameters.parse(given))).toThrow(
    expect.objectContaining({ exitCode: 2, message: expect.stringMatching(says) }),
  );
});

test.each<[Given, string, string]>([
  [{}, 'greedy', 'qdq'],
  [{ method: 'drop', bits: 4 }, 'l1', 'qdq'],
  [{ method: 'udfc', bits: 9 }, 'l2', 'float'],
  [{ method: 'neuron-merging', bits: '8' }, 'l2', 'qdq'],
  [{ select: 'gm', bits: '12' }, 'gm', 'float'],
  [{ bits: 'auto', format: 'weight-only' }, 'greedy', 'weight-only'],
])('%j: selection %s, format %s', (given, selection, format) => {
  const parsed = parameters.parse(given);
  expect(() => checkCombination(parsed)).not.toThrow();
  expect([selectionOf(parsed), formatOf(parsed)]).toEqual([selection, format]);
});

test('bits: edges have more, rules count before that, what is not selected has none', () => {
  const layers = ['stem', 'a', 'b', 'fc'];
  const of = (given: Given, selects: (name: string) => boolean = all) =>
    layers.map(givenBits(parameters.parse(given), layers, selects));
  expect(of({})).toEqual([undefined, undefined, undefined, undefined]);
  expect(of({ bits: 4 })).toEqual([8, 4, 4, 8]);
  expect(of({ bits: 4, edgeBits: 2 })).toEqual([4, 4, 4, 4]);
  expect(of({ bits: 4, layerBits: ['*=6', 'a=32', 'stem=3'] })).toEqual([3, undefined, 6, 6]);
  expect(of({ layerBits: ['b=8'] })).toEqual([undefined, undefined, 8, undefined]);
  expect(of({ bits: 8 }, layerMatcher(['a', 'b']))).toEqual([undefined, 8, 8, undefined]);
});

test('wishes: how many channels stay, or why all do', async () => {
  const network = await readNetwork(parseModel(encodeModel(member('ResNet, basic blocks'))));
  const of = (given: Given, selects: (name: string) => boolean = all) =>
    [...wishes(network, parameters.parse(given), selects)].map(([group, wish]) => [
      network.nameOf(group.producers[0].node),
      'keep' in wish ? wish.keep : wish.reason,
    ]);
  expect(of({ ratio: 0.5, align: 1 })).toEqual([
    ['w0', 4],
    ['w6', 4],
    ['w18', 6],
    ['w24', 6],
    ['w36', 'it is an output of the model'],
  ]);
  expect(of({ ratio: 0.5, align: 8 })[0]).toEqual(['w0', expect.stringMatching(/multiple of 8/)]);
  expect(of({})[0]).toEqual(['w0', 'ratio 0']);
  // A residual stream goes as a whole, or not at all.
  const some = of({ ratio: 0.5, align: 1 }, layerMatcher(['w0', 'w6']));
  expect(some.slice(0, 3)).toEqual([
    ['w0', 'not selected'],
    ['w6', 4],
    ['w18', 'not selected'],
  ]);
  expect(of({ ratio: 0.5, align: 1, layerRatio: ['w6=0.25', 'w2*=0'] }).slice(0, 4)).toEqual([
    ['w0', 4],
    ['w6', 6],
    ['w18', 6],
    ['w24', 'ratio 0'],
  ]);
});
