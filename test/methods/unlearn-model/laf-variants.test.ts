import type { Dataset, TensorData } from '../../../src/data/index.js';
import type { TaskData } from '../../../src/methods/method.js';
import { laf } from '../../../src/methods/unlearn/laf/method.js';
import { encodeModel, parseModel, readModel, serializeModel } from '../../../src/onnx/index.js';
import { newFolder, scratchFolder } from '../../support/cli.js';
import { node, model as proto, value, weight } from '../../support/protos.js';
import { variants } from '../../support/variants.js';
import { around, changedOf, tensorBytes } from './helpers.js';

const folder = scratchFolder();
const quick = laf.parameters.parse({ epochs: 1, vaeEpochs: 1, batchSize: 4 });

/** Examples of made-up inputs, by name and shape. */
function drawn(count: number, inputs: Record<string, number[]>, from = 0): TaskData {
  const tensor = (dims: number[], seed: number): TensorData => ({
    dtype: 'float32',
    dims,
    data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, k) =>
      Math.sin(seed * 7.1 + k * (1 + seed / 10)),
    ),
  });
  const dataset: Dataset = {
    path: 'drawn',
    task: 'none',
    length: count,
    files: [],
    example: async (i) => ({
      inputs: Object.fromEntries(
        Object.entries(inputs).map(([name, dims], k) => [name, tensor(dims, from + i + k / 2)]),
      ),
    }),
  };
  return { dataset, task: 'none', indices: Array.from({ length: count }, (_, i) => i) };
}
const sets = (inputs: Record<string, number[]>) =>
  around({ forget: drawn(6, inputs), retain: drawn(9, inputs, 100) });

/** What really differs in what would be written. */
async function differing(before: Awaited<ReturnType<typeof readModel>>, after: typeof before) {
  const made = parseModel(await serializeModel(after));
  const [a, b] = [await tensorBytes(before), await tensorBytes(made)];
  return a.flatMap(({ name, bytes }, i) => (bytes.equals(b[i].bytes) ? [] : [name]));
}

describe.each(
  variants.filter(({ name }) => !/int8|branch/.test(name)).map((v) => [v.name, v] as const),
)('fixture A, stored as: %s', (name, variant) => {
  test('its extractor changes, where the report says so and nowhere else', async () => {
    const path = variant.write(newFolder(folder, name));
    const model = await readModel(path);
    const { layers, changedTensors } = await laf.apply(model, quick, sets({ image: [1, 28, 28] }));
    const changed = Object.entries(changedOf(layers)).filter(([, count]) => count > 0);
    expect(changed.length).toBeGreaterThanOrEqual(20);
    expect(layers.filter(({ reason }) => reason === 'in the classifier')).toHaveLength(2);
    const found = await differing(await readModel(path), model);
    expect(found.sort()).toEqual([...changedTensors].sort());
    expect(found).toHaveLength(changed.length);
  });
});

describe('several inputs and outputs, and weights on both sides', () => {
  const both = (parts: Parameters<typeof proto>[0] = {}) =>
    parseModel(
      encodeModel(
        proto({
          input: [value('x', ['n', 12]), value('z', ['n', 12])],
          initializer: [weight('a', [12, 12]), weight('b', [12, 9]), weight('c', [12, 5])],
          node: [
            node('MatMul', ['x', 'a'], ['left']),
            node('Add', ['left', 'z'], ['mixed']),
            node('Tanh', ['mixed'], ['e']),
            node('MatMul', ['e', 'b'], ['y']),
            node('MatMul', ['e', 'c'], ['other']),
            node('MatMul', ['z', 'c'], ['apart']),
          ],
          output: [value('y', ['n', 9]), value('other', ['n', 5]), value('apart', ['n', 5])],
          ...parts,
        }),
      ),
    );
  const given = sets({ x: [12], z: [12] });

  test('outputs that change as well are named, others are not', async () => {
    const { notes, layers } = await laf.apply(both(), quick, given);
    expect(Object.keys(changedOf(layers))).toEqual(['a']);
    expect(notes.join('\n')).toMatch(/other outputs may have changed as well: other$/m);
    expect(notes.join()).not.toMatch(/WARNING: the classifier/);
  });

  test('a weight that both sides read changes the classifier, which is told', async () => {
    const tied = both({
      node: [
        node('MatMul', ['x', 'a'], ['left']),
        node('Add', ['left', 'z'], ['mixed']),
        node('Tanh', ['mixed'], ['e']),
        node('MatMul', ['e', 'a'], ['again']),
        node('MatMul', ['again', 'b'], ['y']),
      ],
      output: [value('y', ['n', 9])],
    });
    const at = laf.parameters.parse({ ...quick, split: 'e' });
    const { notes } = await laf.apply(tied, at, given);
    expect(notes.join()).toMatch(/WARNING: the classifier has changed, too: it shares a with/);
  });

  test('a shape that is read from before the split ties nothing', async () => {
    const shaped = both({
      node: [
        node('MatMul', ['x', 'a'], ['left']),
        node('Add', ['left', 'z'], ['mixed']),
        node('Tanh', ['mixed'], ['e']),
        node('Shape', ['left'], ['shape']),
        node('Reshape', ['e', 'shape'], ['f']),
        node('MatMul', ['f', 'b'], ['y']),
      ],
      output: [value('y', ['n', 9])],
    });
    const at = laf.parameters.parse({ ...quick, split: 'e' });
    const { notes, layers } = await laf.apply(shaped, at, given);
    expect(Object.keys(changedOf(layers))).toEqual(['a']);
    expect(notes.join()).not.toMatch(/WARNING: the classifier/);
  });

  test('parameters that are only added to each other each get the whole gradient, once', async () => {
    const added = both({
      initializer: [
        weight('p', [1, 12]),
        weight('q', [1, 12]),
        weight('a', [12, 12]),
        weight('b', [12, 9]),
      ],
      node: [
        node('Add', ['p', 'q'], ['pq']),
        node('MatMul', ['x', 'a'], ['left']),
        node('Add', ['left', 'z'], ['mixed']),
        node('Add', ['mixed', 'pq'], ['e']),
        node('MatMul', ['e', 'b'], ['y']),
      ],
      output: [value('y', ['n', 9])],
    });
    const before = await tensorBytes(added);
    // A batch of one, and one pair of steps: Adam's first step has the length of its rate.
    const at = laf.parameters.parse({ ...quick, split: 'e' });
    await laf.apply(added, at, given);
    const after = await tensorBytes(added);
    const moved = (name: string) => {
      const [a, b] = [before, after].map((all) => {
        const { bytes } = all.find((tensor) => tensor.name === name)!;
        return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + 48));
      });
      return Array.from(a, (v, i) => b[i] - v);
    };
    const [p, q] = [moved('p'), moved('q')];
    for (const [i, step] of p.entries()) expect(q[i]).toBeCloseTo(step, 6);
  });
});
