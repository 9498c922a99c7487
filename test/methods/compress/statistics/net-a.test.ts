import { openDataset } from '../../../../src/data/index.js';
import type { Dataset } from '../../../../src/data/types.js';
import { outputAffine } from '../../../../src/methods/compress/maths/batch-norm.js';
import {
  measureMoments,
  measureSignals,
} from '../../../../src/methods/compress/statistics/measured.js';
import type { LayerVisit } from '../../../../src/methods/compress/statistics/propagate.js';
import {
  encodeModel,
  type Model,
  readModel,
  readTensorFloat32,
} from '../../../../src/onnx/index.js';
import { withSession } from '../../../../src/runtime/session.js';
import { resnet8 } from '../../../support/fixtures.js';
import { prune, withTensors } from './compress.js';
import { foldNorms } from './fold.js';
import {
  correlation,
  diagonal,
  goldenSamples,
  partOf,
  readGolden,
  samplesOf,
  walk,
} from './support.js';

const prunable = ['conv1.weight', 'conv2.weight', 'conv3.weight', 'convA.weight'];

/** `count` Fashion-MNIST images of all classes, normalised as for the golden network. */
async function images(path: string, count: number) {
  const spec = [{ name: 'image', dtype: 'float32', dims: ['batch', 1, 28, 28] }];
  const dataset = await openDataset(path, spec);
  const data = new Float32Array(count * 28 * 28);
  const labels: number[] = [];
  for (let k = 0; k < count; k++) {
    const { inputs, label } = await dataset.example(Math.floor((k * dataset.length) / count));
    data.set(inputs.image.data as Float32Array, k * 28 * 28);
    labels.push(Number(label));
  }
  return { tensor: { dtype: 'float32' as const, dims: [count, 1, 28, 28], data }, labels };
}

const calibration = async (name = 'input'): Promise<Dataset> =>
  samplesOf(name, (await images(resnet8.train, 128)).tensor);

async function accuracy(model: Model): Promise<number> {
  const { tensor, labels } = await images(resnet8.test, 500);
  return withSession(encodeModel(model.proto), { threads: 1 }, async (session) => {
    const { logits } = await session.run({ input: tensor });
    const right = labels.filter((label, i) => {
      const row = Array.from(logits.data.slice(i * 10, i * 10 + 10), Number);
      return row.indexOf(Math.max(...row)) === label;
    });
    return right.length / labels.length;
  });
}

test('what an application makes of the signals is the golden network', async () => {
  const tensors = await prune(await readGolden('netA.onnx'), prunable, 0.5);
  const golden = await readGolden('netA_p50_gauss.onnx');
  for (const tensor of golden.proto.graph!.initializer) {
    const got = tensors.get(tensor.name!);
    const want = await readTensorFloat32(golden, tensor);
    expect(got?.dims).toEqual(tensor.dims);
    const worst = want.reduce((most, v, i) => Math.max(most, Math.abs(v - got!.values[i])), 0);
    expect(worst).toBeLessThan(1e-6);
  }
});

test('behind a normalization means and variances are those that it tells', async () => {
  const visits = await walk(await readGolden('netA.onnx'));
  expect([...visits.keys()]).toHaveLength(7);
  for (const { layer, step } of visits.values()) {
    const { norm, filters } = layer;
    if (!norm) continue;
    const { scale } = outputAffine(filters.outputs, norm);
    const { mean, covariance } = step.preActivation;
    expect(mean).toEqual(norm.beta);
    expect(diagonal(covariance, filters.outputs)).toEqual(
      norm.variance.map((v, i) => scale[i] * scale[i] * v),
    );
  }
});

/** Correlations with what was measured, of the means and of the covariances. */
async function agreement(source: Model, visits: Map<string, LayerVisit>, dataset: Dataset) {
  const layers = [...visits.values()].slice(1);
  const measured = await measureMoments(partOf(source, dataset), layers);
  return layers.map(({ node, input: { original } }) => {
    const { mean, covariance } = measured.get(node.input[0])!;
    return {
      mean: correlation(original.mean, mean),
      covariance: correlation(original.covariance, covariance),
    };
  });
}

test('carried moments are like those of real images', async () => {
  const source = await readGolden('netA.onnx');
  for (const { mean, covariance } of await agreement(
    source,
    await walk(source),
    await calibration(),
  )) {
    expect(mean).toBeGreaterThan(0.5);
    expect(covariance).toBeGreaterThan(0.6);
  }
});

test('and in a network of three residual blocks', async () => {
  const source = await readModel(resnet8.model);
  const visits = await walk(source);
  expect([...visits.values()].filter(({ assumed }) => assumed)).toEqual([]);
  const found = await agreement(source, visits, await calibration('image'));
  expect(found).toHaveLength(9);
  for (const { mean, covariance } of found) {
    expect(mean).toBeGreaterThan(0.7);
    expect(covariance).toBeGreaterThan(0.6);
  }
});

test('two networks side by side', async () => {
  const source = await readGolden('netA.onnx');
  const golden = await readGolden('netA_p50_gauss.onnx');
  const part = partOf(source, goldenSamples());
  const layer = (await walk(source)).get('convA.weight')!;
  const pruned = (await walk(source)).get('conv4.weight')!;
  const signals = await measureSignals(part, golden, [
    { layer, width: 64 },
    { layer: pruned, width: 24 },
  ]);
  const alone = await measureMoments(part, [layer, pruned]);
  const other = await measureMoments(partOf(golden, goldenSamples()), [
    (await walk(golden)).get('conv4.weight')!,
  ]);
  const { original, compressed } = signals.get('conv3_y')!;
  expect(signals.get('conv4_y')!.original.mean).toHaveLength(64);
  const same = (a: Float64Array, b: Float64Array) => {
    expect(a).toHaveLength(b.length);
    a.forEach((value, k) => {
      expect(Math.abs(value - b[k])).toBeLessThan(1e-5);
    });
  };
  same(original.mean, alone.get('conv3_y')!.mean);
  same(original.covariance, alone.get('conv3_y')!.covariance);
  same(compressed!.mean, other.get('conv3_y')!.mean);
  same(compressed!.covariance, other.get('conv3_y')!.covariance);
  expect(compressed!.cross).toHaveLength(48 * 24);
});

describe('with normalization folded away', () => {
  test('moments are carried with what is left', async () => {
    const folded = await foldNorms(await readGolden('netA.onnx'));
    const visits = await walk(folded);
    for (const { layer, step } of visits.values()) {
      expect(layer.norm).toBeUndefined();
      expect(step.r).toBe(0.7);
    }
  });

  test('measuring makes up for it, and best of all layer by layer', async () => {
    const folded = await foldNorms(await readGolden('netA.onnx'));
    const part = partOf(folded, await calibration());
    const measured = await measureMoments(part, [...(await walk(folded)).values()]);
    const of = async (tensors: ReturnType<typeof prune>) =>
      accuracy(withTensors(folded, await tensors));
    const carried = await of(prune(folded, prunable, 0.5));
    const once = await of(prune(folded, prunable, 0.5, { measured }));
    const each = await of(
      prune(folded, prunable, 0.5, { measured }, async (layer, sofar) => {
        const pair = { layer, width: layer.inputKept!.length };
        const signals = await measureSignals(part, withTensors(folded, sofar), [pair]);
        return signals.get(layer.node.input[0])!;
      }),
    );
    expect(carried).toBeLessThan(0.6);
    expect(once).toBeGreaterThan(0.8);
    expect(each).toBeGreaterThan(once);
    expect(each).toBeGreaterThan(0.87);
  });
});
