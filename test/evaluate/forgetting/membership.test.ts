import fc from 'fast-check';
import {
  areaUnderCurve,
  crossEntropies,
  entropies,
  fitLogistic,
  membershipInference,
} from '../../../src/evaluate/forgetting/membership.js';
import { encodeFloat32, encodeModel, type ModelProto, readModel } from '../../../src/onnx/index.js';
import { withSession } from '../../../src/runtime/session.js';
import {
  byParameter,
  golden,
  goldenPath,
  readFloats,
  readImages,
  readIndices,
} from '../../methods/unlearn/golden-ssd.js';

const mean = (values: Float64Array) => values.reduce((a, b) => a + b, 0) / values.length;

describe('the authors’ attack', () => {
  const pixels = 28 * 28;
  const pick = (images: Float32Array, indices: number[]) =>
    Float32Array.from({ length: indices.length * pixels }, (_, at) => {
      const row = Math.floor(at / pixels);
      return images[indices[row] * pixels + (at % pixels)];
    });

  async function entropiesOf(proto: ModelProto, images: Float32Array): Promise<Float64Array> {
    return withSession(encodeModel(proto), { threads: 1 }, async (session) => {
      const [{ name }] = session.inputs;
      const dims = [images.length / pixels, 1, 28, 28];
      const outputs = await session.run({ [name]: { dtype: 'float32', dims, data: images } });
      const { data } = outputs[session.outputs[0].name];
      return entropies(Float32Array.from(data, Number), 10);
    });
  }

  const original = () => readModel(goldenPath('cnn/cnn.onnx'));
  async function dampened() {
    const model = await original();
    const flat = readFloats('cnn/dampened_class3_b64_a5_l1.npy');
    for (const { name, values } of byParameter('cnn', flat)) {
      const tensor = model.proto.graph!.initializer!.find((candidate) => candidate.name === name)!;
      tensor.rawData = encodeFloat32(values, 'float32');
    }
    return model;
  }

  test.each([
    { when: 'before', model: original, expected: golden.mia_example_cnn_class3.before },
    { when: 'after SSD', model: dampened, expected: golden.mia_example_cnn_class3.after_a5_l1 },
  ])('$when', async ({ model, expected }) => {
    const { proto } = await model();
    const train = await readImages('data/train.npz');
    const members = await entropiesOf(
      proto,
      pick(train, readIndices('data/idx_class3_retain.npy')),
    );
    const forget = await entropiesOf(proto, pick(train, readIndices('data/idx_class3_forget.npy')));
    const nonMembers = await entropiesOf(proto, await readImages('data/test.npz'));
    expect(mean(members)).toBeCloseTo(expected.mean_entropy.retain, 5);
    expect(mean(nonMembers)).toBeCloseTo(expected.mean_entropy.test, 5);
    expect(mean(forget)).toBeCloseTo(expected.mean_entropy.forget, 5);

    const plain = fitLogistic(members, nonMembers, 1);
    expect(plain.coefficient).toBeCloseTo(expected.plain_binary.coef, 3);
    expect(plain.intercept).toBeCloseTo(expected.plain_binary.intercept, 3);
    const doubled = fitLogistic(members, nonMembers, 2);
    expect(doubled.coefficient / 2).toBeCloseTo(expected.multinomial.coef, 3);
    expect(doubled.intercept / 2).toBeCloseTo(expected.multinomial.intercept, 3);
    const { forgetRate } = membershipInference({ members, nonMembers, forget })!;
    expect(Math.abs(forgetRate - expected.multinomial.forget_member_rate)).toBeLessThan(0.006);
  });
});

describe('logistic regression', () => {
  const numbers = (limit: number) =>
    fc
      .array(fc.double({ min: -limit, max: limit, noNaN: true }), { minLength: 1, maxLength: 30 })
      .map((values) => Float64Array.from(values));

  /** Gradient of the objective, over the sum of the weights. */
  function gradient(xs: Float64Array[], w: number, b: number, c: number): [number, number] {
    const n = xs[0].length + xs[1].length;
    let [gw, gb] = [w, 0];
    for (const [side, y] of [1, -1].entries())
      for (const x of xs[side]) {
        const slope = (-y * (c * n)) / (2 * xs[side].length) / (1 + Math.exp(y * (w * x + b)));
        gw += slope * x;
        gb += slope;
      }
    return [gw / (c * n), gb / (c * n)];
  }

  test.each([1, 30, 1000])('ends where the gradient is 0, for signals up to %d', (limit) => {
    fc.assert(
      fc.property(
        numbers(limit),
        numbers(limit),
        fc.double({ min: 0.1, max: 10, noNaN: true }),
        (positives, negatives, c) => {
          const { coefficient, intercept } = fitLogistic(positives, negatives, c);
          const [gw, gb] = gradient([positives, negatives], coefficient, intercept, c);
          expect(Math.abs(gw) / limit).toBeLessThan(1e-5);
          expect(Math.abs(gb)).toBeLessThan(1e-5);
        },
      ),
      { numRuns: Number(process.env.RUNS ?? 100) },
    );
  });

  test('does not depend on how many samples a side has', () => {
    const positives = Float64Array.of(1, 2, 3);
    const negatives = Float64Array.of(0, 2);
    const once = fitLogistic(positives, negatives, 6);
    const repeated = Float64Array.from([...negatives, ...negatives, ...negatives]);
    // Nine samples in place of five: the same sum of weights at 5/9 of c.
    const thrice = fitLogistic(positives, repeated, (6 * 5) / 9);
    expect(thrice.coefficient).toBeCloseTo(once.coefficient, 6);
    expect(thrice.intercept).toBeCloseTo(once.intercept, 6);
  });
});

describe('membership inference', () => {
  const ramp = (length: number, from = 0) => Float64Array.from({ length }, (_, i) => from + i);

  test('separates what is apart', () => {
    const signals = { members: ramp(20), nonMembers: ramp(30, 100), forget: ramp(10, 90) };
    expect(membershipInference(signals)).toEqual({ forgetRate: 0, attackAuc: 1, forgetAuc: 1 });
    expect(membershipInference({ ...signals, forget: ramp(4) })?.forgetRate).toBe(1);
  });

  test('regularizes like the multinomial form at C = 1', () => {
    const [members, nonMembers] = [ramp(20).map((x) => (x / 20) ** 3), ramp(20).map((x) => x / 20)];
    const [half, whole] = [1, 2].map((c) => {
      const { coefficient, intercept } = fitLogistic(members, nonMembers, c);
      return -intercept / coefficient;
    });
    // A signal that only one of the two takes for a member's: members have the smaller ones.
    const forget = Float64Array.of((half + whole) / 2);
    expect(Math.abs(half - whole)).toBeGreaterThan(1e-4);
    const { forgetRate } = membershipInference({ members, nonMembers, forget })!;
    expect(forgetRate).toBe(Number(forget[0] < whole));
  });

  test('says nothing with too few samples or values that are not finite', () => {
    const enough = { members: ramp(20), nonMembers: ramp(20), forget: ramp(1) };
    expect(membershipInference(enough)).not.toBeNull();
    expect(membershipInference({ ...enough, members: ramp(19) })).toBeNull();
    expect(membershipInference({ ...enough, nonMembers: ramp(19) })).toBeNull();
    expect(membershipInference({ ...enough, forget: ramp(0) })).toBeNull();
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
      expect(membershipInference({ ...enough, forget: Float64Array.of(bad) })).toBeNull();
  });

  test('calls nobody a member when all signals are the same', () => {
    const same = new Float64Array(20).fill(0.3);
    const all = { members: same, nonMembers: same, forget: same };
    const { forgetRate, attackAuc } = membershipInference(all)!;
    expect([0, 1]).toContain(forgetRate);
    expect(attackAuc).toBe(0.5);
  });
});

describe('signals', () => {
  test('entropy and cross-entropy of logits and of probabilities', () => {
    const probabilities = Float32Array.of(0.5, 0.5, 0, 0.25, 0.25, 0.5);
    const logits = probabilities.map((p) => (p === 0 ? -200 : Math.log(p) + 3));
    for (const scores of [probabilities, logits]) {
      const [half, quarters] = entropies(scores, 3);
      expect(half).toBeCloseTo(Math.LN2, 6);
      expect(quarters).toBeCloseTo(1.5 * Math.LN2, 6);
      const losses = crossEntropies(scores, 3, [1, 0]);
      expect(losses[0]).toBeCloseTo(Math.LN2, 6);
      expect(losses[1]).toBeCloseTo(2 * Math.LN2, 6);
    }
  });

  test('what is ruled out adds nothing', () => {
    expect([...entropies(Float32Array.of(0, Number.NEGATIVE_INFINITY), 2)]).toEqual([0]);
  });
});

test('AUC is the share of pairs in order, ties half', () => {
  const values = fc
    .array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 12 })
    .map((list) => Float64Array.from(list));
  fc.assert(
    fc.property(values, values, (positives, negatives) => {
      let wins = 0;
      for (const p of positives) for (const n of negatives) wins += p < n ? 1 : p === n ? 0.5 : 0;
      const auc = areaUnderCurve(positives, negatives);
      expect(auc).toBeCloseTo(wins / (positives.length * negatives.length), 12);
    }),
  );
});
