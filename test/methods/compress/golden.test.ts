import { readNetwork, wishes } from '../../../src/methods/compress/network.js';
import { parameters } from '../../../src/methods/compress/parameters.js';
import { prune } from '../../../src/methods/compress/pruning.js';
import { encodeModel, type Model, parseModel, readModel } from '../../../src/onnx/index.js';
import { withSession } from '../../../src/runtime/session.js';
import { accuracy } from './formats/helpers.js';
import { goldenKept, readFloat32 } from './maths/net-a.js';
import { compressed, context, type Given, golden } from './support.js';

/** The golden network's residual block adds up conv4's channels: they stayed. */
const asGolden = { layerRatio: ['*conv4*=0'], align: 1 };

const netA = (): Promise<Model> => readModel(golden('netA.onnx'));

const cases: [name: string, given: Given, exact: boolean][] = [
  ['p30_l1drop', { ratio: 0.3, method: 'drop' }, true],
  ['p50_l1drop', { ratio: 0.5, method: 'drop' }, true],
  ['p30_udfc', { ratio: 0.3, method: 'udfc', select: 'l1' }, true],
  ['p50_udfc', { ratio: 0.5, method: 'udfc', select: 'l1' }, true],
  // The goldens do not refit BatchNormalizations.
  ['p30_gauss', { ratio: 0.3 }, false],
  ['p50_gauss', { ratio: 0.5 }, false],
];

test.each(cases)('%s: the channels of the golden network', async (name, given) => {
  const network = await readNetwork(await netA());
  const parsed = parameters.parse({ ...asGolden, ...given });
  const wanted = wishes(network, parsed, () => true);
  const { positions } = await prune(network, wanted, parsed, context);
  const kept = network.found.layers.flatMap(({ node, name }) => {
    const rows = positions.outputs(node);
    return rows ? [[/conv[A-Z0-9]/.exec(name)?.[0], rows] as const] : [];
  });
  expect(new Map(kept)).toEqual(goldenKept(name));
});

test.each(cases.filter(([, , exact]) => exact))('%s: its logits', async (name, given) => {
  const { proto } = await compressed(await netA(), { ...asGolden, ...given });
  const input = readFloat32('netA.input8.npy');
  const { logits } = await withSession(encodeModel(proto), { threads: 1 }, (session) =>
    session.run({ input: { dtype: 'float32', ...input } }),
  );
  const want = readFloat32(`netA.${name}.logits.npy`).data;
  const worst = want.reduce(
    (most, x, k) => Math.max(most, Math.abs(x - Number(logits.data[k]))),
    0,
  );
  expect(worst).toBeLessThan(0.002);
});

test('p50_gauss: as good as the golden network, and better than what goes by weights', async () => {
  const score = async (model: Model) => accuracy(model, 1000, 'all');
  const of = async (given: Given) => {
    const { proto } = await compressed(await netA(), { ...asGolden, ratio: 0.5, ...given });
    return score(parseModel(encodeModel(proto)));
  };
  const best = await score(await readModel(golden('netA_p50_gauss.onnx')));
  const gauss = await of({});
  expect(Math.abs(gauss - best)).toBeLessThan(0.015);
  const udfc = await of({ method: 'udfc', select: 'l1' });
  const drop = await of({ method: 'drop' });
  expect(udfc).toBeGreaterThan(drop);
  expect(gauss).toBeGreaterThan(udfc + 0.3);
});
