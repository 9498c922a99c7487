import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { gradients } from '../../src/autodiff/gradients.js';
import { ResectError } from '../../src/errors.js';
import { readModel } from '../../src/onnx/index.js';
import {
  byParameter,
  golden,
  goldenPath,
  readFloats,
  readImages,
  readIndices,
} from '../methods/unlearn/golden-ssd.js';
import { scratchFolder } from '../support/cli.js';
import { variants } from '../support/variants.js';
import { goldenBatch, goldenCase, goldenCases, goldenGradients, gradientError } from './golden.js';

const folder = scratchFolder();

async function step(path: string, batch: ReturnType<typeof goldenBatch>) {
  const model = await gradients(await readModel(path), { loss: 'cross-entropy' });
  try {
    return await model.run(batch.feeds, { target: batch.target });
  } finally {
    await model.release();
  }
}

describe("torch's gradients in float64", () => {
  test.each(goldenCases.map((c) => [c.name, c] as const))('%s', async (_, c) => {
    const { loss, gradients: got } = await step(c.model, goldenBatch(c));
    expect(Math.abs(loss - c.loss)).toBeLessThan(5e-7);
    expect(gradientError(got, await goldenGradients(c))).toBeLessThan(2e-6);
  });
});

describe('the same network in the ways that exporters store it', () => {
  const resnet8 = goldenCase('resnet8');
  const plain = step(resnet8.model, goldenBatch(resnet8));
  plain.catch(() => {});

  const float = variants.filter(({ name }) => !/^u?int8/.test(name));
  test.each(float.map((v) => [v.name, v] as const))('%s', async (name, variant) => {
    const path = variant.write(mkdtempSync(join(folder, 'variant-')));
    const [expected, got] = [await plain, await step(path, goldenBatch(resnet8))];
    // By value, as variants have names, layouts and weights of their own; other weights have no gradient.
    const norms = (of: Iterable<ArrayLike<number>>) =>
      [...of]
        .map((g) => Math.hypot(...Array.from(g)))
        .filter((norm) => norm > 0)
        .sort((a, b) => a - b);
    const [want, have] = [norms(expected.gradients.values()), norms(got.gradients.values())];
    expect(have).toHaveLength(want.length);
    const largest = want[want.length - 1];
    const tolerance = name.startsWith('half') ? 2e-2 : 1e-6;
    for (const [i, norm] of want.entries())
      expect(Math.abs(have[i] - norm) / largest).toBeLessThan(tolerance);
    expect(Math.abs(got.loss - expected.loss)).toBeLessThan(tolerance);
  });

  test.each(['int8 per channel', 'uint8 per tensor'])('%s is refused', async (name) => {
    const variant = variants.find((v) => v.name === name);
    const path = variant?.write(mkdtempSync(join(folder, 'variant-'))) ?? '';
    const error = await step(path, goldenBatch(resnet8)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(ResectError);
    expect(error).toMatchObject({
      exitCode: 5,
      detail: { where: expect.stringContaining('DequantizeLinear') },
    });
  });

  test('weights under their own names, in their own layout', async () => {
    const variant = variants.find((v) => v.name === 'branch with weights');
    const path = variant?.write(mkdtempSync(join(folder, 'variant-'))) ?? '';
    const expected = (await plain).gradients;
    const { gradients: got } = await step(path, goldenBatch(resnet8));
    for (const [name, gradient] of expected) {
      const inBranch = [...got].filter(([n]) => n.endsWith(`then_branch/${name}`));
      expect(inBranch).toHaveLength(1);
      expect(gradientError(new Map([[name, inBranch[0][1]]]), new Map([[name, gradient]]))).toBe(0);
    }
    // The branch that is not taken has parameters, and no influence.
    const never = [...got].filter(([n]) => n.includes('never'));
    expect(never.map(([, g]) => Math.max(...g.map(Math.abs)))).toEqual([0]);
  });
});

describe("selective synaptic dampening's first batch", () => {
  /** 64 images of the class to forget, which is 3. */
  const batch = async () => {
    const images = await readImages('data/train.npz');
    const rows = readIndices('data/idx_class3_forget.npy').slice(0, 64);
    const size = 28 * 28;
    const data = new Float32Array(rows.length * size);
    for (const [i, row] of rows.entries())
      data.set(images.subarray(row * size, (row + 1) * size), i * size);
    const labels = new BigInt64Array(rows.length).fill(3n);
    return {
      image: { dtype: 'float32' as const, dims: [64, 1, 28, 28], data },
      target: { dtype: 'int64' as const, dims: [64], data: labels },
    };
  };

  test.each(['mlp', 'cnn'] as const)('%s', async (name) => {
    const { image, target } = await batch();
    const model = await gradients(await readModel(goldenPath(`${name}/${name}.onnx`)), {
      loss: 'cross-entropy',
    });
    const feeds = { [model.inputs[0].name]: image };
    const step = await model.run(feeds, { target });
    const logits = await model.predict(feeds);
    await model.release();

    const flat = readFloats(`${name}/grad_forget_batch0.npy`);
    const largest = flat.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    // As cases.json has it.
    expect([...step.gradients.keys()].sort()).toEqual(
      golden.models[name].param_order.map((p) => p.name).sort(),
    );
    for (const { name: parameter, values } of byParameter(name, flat)) {
      const got = step.gradients.get(parameter) as Float32Array;
      for (const [i, g] of values.entries())
        if (!(Math.abs(got[i] - g) <= 2e-6 * largest + 1e-4 * Math.abs(g)))
          throw new Error(`${parameter}[${i}]: ${got[i]} for ${g}`);
    }
    const expected = readFloats(`${name}/logits_forget_batch0.npy`);
    for (const [i, v] of expected.entries())
      expect(Math.abs(Number(logits.data[i]) - v)).toBeLessThan(1e-4);
  });

  test('cnn with its normalisations folded in has the same loss', async () => {
    const { image, target } = await batch();
    const losses = await Promise.all(
      ['cnn/cnn.onnx', 'cnn/cnn_folded.onnx'].map(async (path) => {
        const model = await gradients(await readModel(goldenPath(path)), { loss: 'cross-entropy' });
        const feeds = { [model.inputs[0].name]: image };
        const { loss, gradients: found } = await model.run(feeds, { target });
        await model.release();
        // The bias of the last layer is no part of what was folded.
        return { loss, last: [...found].filter(([, g]) => g.length === 10).map(([, g]) => g) };
      }),
    );
    expect(Math.abs(losses[1].loss - losses[0].loss)).toBeLessThan(1e-6);
    expect(losses[1].last).toHaveLength(1);
    const [a, b] = losses.map(({ last }) => new Map([['bias', last[0]]]));
    expect(gradientError(b, a)).toBeLessThan(1e-4);
  });
});
