import { keepChannels } from '../../../src/graph/channels/slice.js';
import { readNetwork, wishes } from '../../../src/methods/compress/network.js';
import { parameters } from '../../../src/methods/compress/parameters.js';
import { selectChannels } from '../../../src/methods/compress/selection.js';
import { encodeModel, Model, type ModelProto, parseModel } from '../../../src/onnx/index.js';
import { readPointwise, removable, withConstants, withTwins } from './special-channels.js';
import { apart, compressed, parameterCount } from './support.js';
import { member, zoo } from './zoo.js';

/** What compression leaves as it was, and what it does to networks that can lose channels for nothing. */

const names = Object.keys(zoo).filter((name) => name !== 'weights in Constant nodes');
const ratio = 0.4;

const networkOf = (proto: ModelProto) => readNetwork(parseModel(encodeModel(proto)));

test.each(names)('%s: channels that are zero go first, and nothing is lost', async (name) => {
  const plain = member(name);
  const source = await withConstants(plain, await removable(plain, ratio), () => 0);
  expect(await apart(plain, source)).toBeGreaterThan(0.1);
  const { proto } = await compressed(source, { ratio });
  expect(parameterCount(proto)).toBeLessThan(0.75 * parameterCount(source));
  // Moments of smooth activations are those of a series.
  expect(await apart(source, proto)).toBeLessThan(name.startsWith('MatMul') ? 2e-4 : 1e-6);
});

test.each(names)('%s: constant channels move into biases', async (name) => {
  const plain = member(name);
  const chosen = readPointwise(await removable(plain, ratio));
  const source = await withConstants(plain, chosen, (channel) => 0.5 + channel / 20);
  expect(await apart(plain, source)).toBeGreaterThan(0.1);
  const made = new Set(
    [...chosen.keys()].flatMap(({ producers }) => producers.map(({ node }) => node.output[0])),
  );
  const { found } = await networkOf(source);
  const layers = found.layers.filter(({ node }) => made.has(node.output[0]));
  const layerRatio = layers.map(({ name: layer }) => `${layer}=${ratio}`);
  const { proto } = await compressed(source, { layerRatio });
  expect(parameterCount(proto)).toBeLessThan(parameterCount(source));
  expect(await apart(source, proto)).toBeLessThan(2e-4);
});

// Of twins in two parts of a Split neither can stand for the other.
test.each(names.filter((name) => name !== 'Split'))(
  '%s: a channel stands for its twin',
  async (name) => {
    const plain = member(name);
    const source = await withTwins(plain, await removable(plain, ratio));
    expect(await apart(plain, source)).toBeGreaterThan(0.1);
    // To the ridge.
    const { proto } = await compressed(source, { ratio });
    expect(await apart(source, proto)).toBeLessThan(0.01);
  },
);

test.each(Object.keys(zoo))('%s: drop is what cutting leaves', async (name) => {
  const source = member(name);
  for (const select of ['l1', 'l2', 'gm', 'greedy'] as const) {
    const given = parameters.parse({ ratio, align: 1, method: 'drop', select });
    const network = await networkOf(source);
    const wanted = wishes(network, given, () => true);
    const { kept, refused } = await selectChannels(network, wanted, given, {});
    expect([...refused.values()]).toEqual([]);
    const cut = await keepChannels(network.model, kept);
    const { proto } = await compressed(source, given);
    expect(parameterCount(proto)).toBe(parameterCount(cut));
    expect(await apart(cut, proto)).toBe(0);
  }
});

test.each(Object.keys(zoo))('%s: nothing asked, nothing done', async (name) => {
  const source = member(name);
  const model = new Model(source);
  const { proto, surgery } = await compressed(model, { ratio: 0, bits: 32 });
  expect(Buffer.compare(encodeModel(proto), encodeModel(source))).toBe(0);
  expect(surgery.changedTensors).toEqual([]);
  expect(surgery.notes[0]).toMatch(/^Nothing changed/);
});
