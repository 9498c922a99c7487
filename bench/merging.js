/**
 * What T3 and its rivals make of a generalist and an expert, at home, under drift and where the expert
 * never was; and static merges of two experts.
 *
 *   npm run build && node bench/merging.js
 */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { meanCorruptionError } from '../dist/src/evaluate/merging/corruption.js';
import { methods, operate } from '../dist/src/index.js';
import { severities, writeDrifted } from './support/drift.js';
import { withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';

const fixture = (name) => fileURLToPath(new URL(`../fixtures/merging/${name}`, import.meta.url));
const generalist = fixture('generalist.onnx');
const seeds = [1, 2, 3];
const levels = [1, 3, 5];
const corruptions = Object.keys(severities);

const percent = (share) => (100 * share).toFixed(1);
const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const deviation = (values) =>
  Math.sqrt(
    mean(values.map((v) => (v - mean(values)) ** 2)) * (values.length / (values.length - 1)),
  );

/** T3 and DaWin: a name, the method, its parameters, and whether it sees calibration samples. */
const dynamic = [
  ['T3 literal (γ 0.5), batch', 't3', { form: 'literal' }],
  ['T3 literal, sample', 't3', { form: 'literal', mode: 'sample' }],
  ['T3 literal, λ on the expert, batch', 't3', { form: 'literal', lambdaOn: 'expert' }],
  ['T3 literal, γ 20, batch', 't3', { form: 'literal', gamma: 20 }],
  ['T3 centred (γ 20), batch', 't3', { form: 'centred' }],
  ['T3 centred, sample', 't3', { form: 'centred', mode: 'sample' }],
  ['T3 calibrated, batch', 't3', {}, true],
  ['T3 calibrated, sample', 't3', { mode: 'sample' }, true],
  ['T3 calibrated, cluster', 't3', { mode: 'cluster' }, true],
  ['T3 calibrated, static', 't3', { mode: 'static' }, true],
  ['T3 calibrated, batch, BN folded', 't3', { bn: 'fold' }, true],
  ['T3 static, BN reestimated', 't3', { mode: 'static', bn: 'reestimate' }, true],
  ['DaWin, sample', 'dawin', {}],
  ['DaWin, batch', 'dawin', { mode: 'batch' }],
  ['DaWin, offset, sample', 'dawin', { offset: true }, true],
  ['DaWin, cluster', 'dawin', { mode: 'cluster' }, true],
];

/** Rows of one expert: every method on the home set, the other kind, both mixed, and drift of three seeds. */
async function rowsOf(expert, { home, other }, folder) {
  const sets = [
    ['clean', fixture(`test-${home}.yaml`)],
    ['other', fixture(`test-${other}.yaml`)],
    ['mixed', fixture('test.yaml')],
  ];
  for (const seed of seeds)
    for (const corruption of corruptions)
      for (const level of levels) {
        const card = await writeDrifted(sets[0][1], folder, corruption, level, seed);
        sets.push([`${corruption}-${seed}@${level}`, card]);
      }
  const run = async (method, parameters, calibrated, sweep) => {
    const result = await operate({
      method: methods[method],
      parameters,
      model: expert,
      output: join(folder, 'merged.onnx'),
      force: true,
      samples: 500,
      ...(calibrated && { calib: fixture(`calib-${home}.yaml`) }),
      merging: {
        others: [generalist],
        names: ['expert', 'generalist'],
        sets: sets.map(([name, path]) => `${name}=${path}`),
        sweep,
      },
    });
    return result.comparison.merging.rows;
  };
  const accuracies = (row) =>
    Object.fromEntries(sets.map(([name], i) => [name, row.metrics[i].accuracy]));
  const measured = new Map();
  for (const [i, [name, method, parameters, calibrated]] of dynamic.entries()) {
    const rows = await run(method, parameters, calibrated, i === 0 ? 11 : 0);
    if (i === 0) for (const row of rows.slice(0, -1)) measured.set(row.name, accuracies(row));
    measured.set(name, accuracies(rows.at(-1)));
    console.error(`${home}: ${name}`);
  }
  const statics = ['expert', 'generalist', ...[...measured.keys()].filter((n) => /^0\.\d/.test(n))];
  const best = {};
  for (const [name] of sets) best[name] = Math.max(...statics.map((s) => measured.get(s)[name]));
  const renamed = [...measured].map(([name, values]) => [
    name.replace(/^(0\.\d)0 generalist$/, 'static, $1 of the generalist'),
    values,
  ]);
  return [...renamed, ['best static weight of each set (an oracle)', best]];
}

/** mCE of one seed, relative to the generalist. */
function mce(values, reference, seed) {
  const sets = corruptions.flatMap((c) => levels.map((level) => `${c}-${seed}@${level}`));
  const errors = (of) => sets.map((set) => 1 - of[set]);
  return meanCorruptionError(sets, errors(values), errors(reference)).mce;
}

function shown(rows) {
  const reference = rows.find(([name]) => name === 'generalist')[1];
  return table(
    rows.map(([name, values]) => {
      const drifted = (c) =>
        mean(seeds.flatMap((s) => levels.map((l) => values[`${c}-${s}@${l}`])));
      const each = seeds.map((seed) => mce(values, reference, seed));
      const { clean, other, mixed } = values;
      return {
        method: name,
        clean: percent(clean),
        ...Object.fromEntries(corruptions.map((c) => [c, percent(drifted(c))])),
        mCE: `${mean(each).toFixed(1)} ± ${deviation(each).toFixed(1)}`,
        'other kind': percent(other),
        'harmonic mean': percent((2 * clean * other) / (clean + other) || 0),
        mixed: percent(mixed),
      };
    }),
  );
}

/** Merges of both experts, the generalist as their base. */
const merges = [
  ['linear, 0.5 each (soup)', 'soup', {}],
  ['linear, 0.7 and 0.3', 'linear', { weights: '0.7,0.3' }],
  ['slerp, 0.5', 'slerp', {}],
  ['soup of both and the generalist', 'soup', {}, 'all'],
  ['task arithmetic, scale 0.3', 'task-arithmetic', {}, 'base'],
  ['task arithmetic, scale 0.5', 'task-arithmetic', { scale: 0.5 }, 'base'],
  ['task arithmetic, scale 1', 'task-arithmetic', { scale: 1 }, 'base'],
  ['TIES, density 0.2, scale 1', 'ties', {}, 'base'],
  ['TIES, density 0.5, scale 0.5', 'ties', { density: 0.5, scale: 0.5 }, 'base'],
  ['TIES, density 0.2 of the model, scale 0.5', 'ties', { trim: 'model', scale: 0.5 }, 'base'],
  ['TIES, density 0.2, BN reestimated', 'ties', { bn: 'reestimate' }, 'base'],
  ['DARE, density 0.5', 'dare', {}, 'base'],
  ['DARE, density 0.9', 'dare', { density: 0.9 }, 'base'],
  ['DARE, density 0.5, BN reestimated', 'dare', { bn: 'reestimate' }, 'base'],
  ['soup, BN reestimated', 'soup', { bn: 'reestimate' }],
  ['soup, BN folded', 'soup', { bn: 'fold' }],
];

async function expertsMerged(folder) {
  const rows = [];
  const add = (method, [fashion, digits]) =>
    rows.push({
      method,
      fashion: percent(fashion),
      digits: percent(digits),
      mean: percent((fashion + digits) / 2),
    });
  for (const [i, [name, method, parameters, more]] of merges.entries()) {
    const result = await operate({
      method: methods[method],
      parameters,
      model: fixture('expert-a.onnx'),
      output: join(folder, 'merged.onnx'),
      force: true,
      samples: 500,
      ...(parameters.bn === 'reestimate' && { calib: fixture('calib.yaml') }),
      merging: {
        others: [fixture('expert-b.onnx'), ...(more === 'all' ? [generalist] : [])],
        names: ['expert-a', 'expert-b', ...(more === 'all' ? ['generalist'] : [])],
        ...(more === 'base' && { base: generalist }),
        sets: ['fashion', 'digits'].map((kind) => `${kind}=${fixture(`test-${kind}.yaml`)}`),
      },
    });
    const found = result.comparison.merging.rows.map((row) => [
      row.name,
      row.metrics.map(({ accuracy }) => accuracy),
    ]);
    if (i === 0) for (const [model, accuracies] of found.slice(0, -1)) add(model, accuracies);
    if (more === 'all') add('generalist', found[2][1]);
    add(name, found.at(-1)[1]);
  }
  return table(rows);
}

await withFolder(async (folder) => {
  const fashion = await rowsOf(
    fixture('expert-a.onnx'),
    { home: 'fashion', other: 'digits' },
    folder,
  );
  const digits = await rowsOf(
    fixture('expert-b.onnx'),
    { home: 'digits', other: 'fashion' },
    folder,
  );
  publish(
    'merging',
    'Merging a generalist and an expert',
    [
      'Networks of 44 thousand parameters that share a start (fixtures/merging). The generalist knows fashion and digits and was trained on drifted images; an expert was tuned on clean images of one kind and forgot the other. Accuracy in percent, on 1,000 images a set.',
      '- **clean**: the kind that the expert was tuned on. **other kind**: what it forgot. **mixed**: both kinds in one stream, in random order, in batches of 32.\n- **noise** to **occlusion**: clean images with drift, mean of severities 1, 3 and 5 and of three seeds.\n- **mCE**: errors under drift relative to the generalist, mean of five corruptions; ± deviation over the seeds of drift (not of training).\n- Calibrated forms saw 250 unlabelled clean images.',
      '## Expert for fashion',
      shown(fashion),
      '## Expert for digits',
      shown(digits),
      '## Both experts in one set of weights',
      await expertsMerged(folder),
      'The generalist is the base; statistics of BatchNormalizations are the mean of the experts but in task arithmetic.',
    ],
    'each merge written by `operate` as the command line does, and run in ONNX Runtime in batches of 32.',
  );
});
