import { batchCoefficient, coefficient } from '../../../../src/methods/merge/maths/coefficient.js';
import { dawin, dawinOffset } from '../../../../src/methods/merge/maths/dawin.js';
import { entropies, jensenShannon } from '../../../../src/methods/merge/maths/disagreement.js';
import { weightedSum } from '../../../../src/methods/merge/maths/linear.js';
import { slerp } from '../../../../src/methods/merge/maths/slerp.js';
import {
  addElected,
  addTaskVectors,
  taskVector,
} from '../../../../src/methods/merge/maths/task-vectors.js';
import { applyTrim, trimOf } from '../../../../src/methods/merge/maths/trim.js';
import { type GoldenCase, goldenFolder } from '../../../support/golden-cases.js';

const t3 = goldenFolder('t3');

/** Results in float32 of data in float64. */
const rounding = 3e-7;

const checks: Record<string, (golden: GoldenCase) => void> = {
  js(golden) {
    const temperature = golden.number('T');
    const cool = (name: string) => golden.input(name).map((z) => z / temperature);
    const classes = golden.array('logits_pt').dims[1];
    const nats = jensenShannon(cool('logits_pt'), cool('logits_ft'), classes);
    const bits = golden.record.params.base === 2;
    golden.expectOutput('js', bits ? nats.map((j) => j / Math.LN2) : nats);
  },
  t3_lambda(golden) {
    const { form, gamma = 0, kappa = 0, tau = 1, lmin, lmax } = golden.record.params;
    const rule = { form, gamma, kappa, tau, lmin, lmax } as Parameters<typeof coefficient>[1];
    golden.expectOutput('lam', coefficient(golden.input('js'), rule));
    golden.expectOutput('lam_batch', [batchCoefficient(golden.input('js'), rule)]);
  },
  dawin(golden) {
    const [p, q] = entropiesOf(golden);
    golden.expectOutput('lam_ft', dawin(p, q));
    golden.expectOutput(
      'lam_pt',
      dawin(p, q).map((l) => 1 - l),
    );
  },
  dawin_offset(golden) {
    const [p, q] = entropiesOf(golden);
    const offset = dawinOffset(p, q);
    golden.expectOutput('offset', [offset.offset]);
    golden.expectOutput('w', [offset.weight]);
    golden.expectOutput('lam_ft', dawin(p, q, offset));
  },
  lerp(golden) {
    const share = golden.number('lam_gen');
    const merged = weightedSum([tensor(golden, 'exp'), tensor(golden, 'gen')], [1 - share, share]);
    golden.expectOutput('out', merged, rounding);
  },
  task_arithmetic(golden) {
    const { base, vectors } = taskVectors(golden);
    golden.expectOutput('out', addTaskVectors(base, vectors, golden.number('scale')), rounding);
  },
  slerp(golden) {
    const merged = slerp(tensor(golden, 'a'), tensor(golden, 'b'), golden.number('t'));
    golden.expectOutput('out', merged, rounding);
  },
  ties(golden) {
    const { base, vectors } = taskVectors(golden);
    for (const vector of vectors)
      applyTrim(vector, trimOf(vector, Math.round(golden.number('density') * vector.length)));
    golden.expectOutput('out', addElected(base, vectors, golden.number('scale')), rounding);
  },
  dare_linear(golden) {
    const { base, vectors } = taskVectors(golden);
    const kept = ['mask1', 'mask2'].map(golden.input);
    const dropped = vectors.map((vector, m) =>
      vector.map((v, i) => (v * kept[m][i]) / (1 - golden.number('drop_p'))),
    );
    golden.expectOutput('out', addTaskVectors(base, dropped, golden.number('scale')), rounding);
  },
};

const tensor = (golden: GoldenCase, name: string) => Float32Array.from(golden.input(name));

function taskVectors(golden: GoldenCase) {
  const base = tensor(golden, 'base');
  return { base, vectors: ['m1', 'm2'].map((name) => taskVector(tensor(golden, name), base)) };
}

const entropiesOf = (golden: GoldenCase) =>
  ['logits_pt', 'logits_ft'].map((name) =>
    entropies(golden.input(name), golden.array(name).dims[1]),
  );

test('every operation of the golden data is checked', () => {
  expect(Object.keys(checks).sort()).toEqual(t3.ops().sort());
});

test.each(
  Object.keys(checks).flatMap((op) => t3.cases(op).map((c) => [c.record.name, c] as const)),
)('%s', (_, golden) => checks[golden.record.op](golden));
