/**
 * What unlearning forgets, keeps and costs: every class of fixture A against a network retrained without
 * it, 100 random images, images with wrong labels, and planted sentences of a language model.
 *
 *   npm run build && node bench/unlearn.js [--part classes|laf|baselines|random|mislabelled|sentences]
 *
 * Every row is one run of the command. CPU seconds are of the whole process, without --relearn.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { resect, runNode, withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';

const { values: flags } = parseArgs({ options: { part: { type: 'string', multiple: true } } });
const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url));
const at = (...parts) => join(fixtures, ...parts);
const images = {
  model: at('resnet8', 'resnet8.onnx'),
  data: ['--retain', at('resnet8', 'train.yaml'), '--eval', at('resnet8', 'test.yaml')],
  forget: ['--forget', at('resnet8', 'train.yaml')],
};
const mislabelled = {
  model: at('resnet8-mislabelled', 'resnet8-mislabelled.onnx'),
  data: [
    ...['--retain', at('resnet8-mislabelled', 'train.yaml')],
    ...['--eval', at('resnet8', 'test.yaml')],
  ],
  forget: ['--forget', at('resnet8-mislabelled', 'train.yaml')],
};
const twin = (name) => at('resnet8-retrained', `without-${name}.onnx`);
const share = (x) => (x === undefined ? '' : `${(100 * x).toFixed(1)} %`);
const number = (x) => (x === undefined ? '' : Number(x.toPrecision(3)));
const steps = (x) => (x === undefined ? '' : x === null ? '> 500' : x);

/** One run of the command; undefined with the reason when it refuses. */
async function unlearn(method, model, args, { relearn = true } = {}) {
  return withFolder(async (folder) => {
    const common = [resect, ['unlearn', ...method, model, ...args, '--threads', 1, '--json']];
    const run = (name, more = []) =>
      runNode(common[0], [...common[1], '-o', join(folder, name), ...more]).catch(() => undefined);
    const timed = await run('timed.onnx');
    if (!timed) return undefined;
    const told = relearn ? await run('told.onnx', ['--relearn']) : timed;
    return { cpu: timed.cpu, result: JSON.parse(told.stdout) };
  });
}

/** A row of measures of one side of a request. */
const imageRow = (name, m, cpu) => ({
  ' ': name,
  forget: share(m.forget.accuracy),
  retain: share(m.retain.accuracy),
  'test, forgotten': share(m.testForget?.accuracy),
  'test, others': share((m.testRetain ?? m.test).accuracy),
  'taken for members': share(m.membership?.forgetRate),
  'tug of war': number(m.tugOfWar),
  relearn: steps(m.relearnSteps),
  'CPU s': cpu === undefined ? '' : number(cpu),
});

const refused = (name) => ({
  ...imageRow(name, { forget: {}, retain: {}, test: {} }),
  forget: 'refused',
});

/** The alpha that was used, for the search. */
const alphaOf = ({ notes }) => /alpha ([\d.]+)/.exec(notes.join(' '))?.[1] ?? '';

async function classes() {
  const rows = [];
  for (let label = 0; label < 10; label++) {
    const reference = existsSync(twin(`class-${label}`)) ? twin(`class-${label}`) : undefined;
    const args = [
      ...images.forget,
      '--where',
      `label=${label}`,
      ...images.data,
      ...(reference ? ['--reference', reference] : []),
    ];
    let first = true;
    for (const [name, method] of [
      ['SSD, alpha auto', ['ssd', '--alpha', 'auto']],
      ['SSD, alpha 10', ['ssd', '--alpha', 10]],
      ['ASSD', ['ssd', '--variant', 'assd']],
      ['LAF', ['laf']],
    ]) {
      const run = await unlearn(method, images.model, args);
      if (!run) {
        rows.push(refused(`${label}: ${name}`));
        continue;
      }
      const { forgetting } = run.result.comparison;
      if (first) {
        rows.push(imageRow(`${label}: before`, forgetting.before));
        if (forgetting.reference) rows.push(imageRow(`${label}: retrained`, forgetting.reference));
        first = false;
      }
      const alpha = !/auto|ASSD/.test(name) ? '' : ` (${alphaOf(run.result)})`;
      rows.push(imageRow(`${label}: ${name}${alpha}`, forgetting.after, run.cpu));
    }
  }
  return ['## Forgetting a class, each of the ten', table(rows)];
}

/** What to do where LAF turns representations away and the classifier still knows them. */
async function lafVariants() {
  const rows = [];
  for (let label = 0; label < 10; label++) {
    const reference = ['--reference', twin(`class-${label}`)];
    const args = [...images.forget, '--where', `label=${label}`, ...images.data, ...reference];
    for (const [name, method] of [
      ['temperature 5', ['laf', '--temperature', 5]],
      ['temperature 2', ['laf', '--temperature', 2]],
      ['LAF+R, all labels', ['laf', '--supervised-repair']],
    ]) {
      const { cpu, result } = await unlearn(method, images.model, args, { relearn: false });
      const { before, after } = result.comparison.forgetting;
      if (name === 'temperature 5') rows.push(imageRow(`${label}: before`, before));
      rows.push(imageRow(`${label}: ${name}`, after, cpu));
    }
  }
  return ['## LAF at other temperatures, and repaired: each of the ten classes', table(rows)];
}

const everyMethod = [
  ['SSD, alpha auto', ['ssd', '--alpha', 'auto']],
  ['SSD, alpha 10', ['ssd', '--alpha', 10]],
  ['SSD, alpha 2', ['ssd', '--alpha', 2]],
  ['LFSSD, alpha auto', ['ssd', '--variant', 'lfssd', '--alpha', 'auto']],
  ['ASSD', ['ssd', '--variant', 'assd']],
  ['SSD of single examples, alpha auto', ['ssd', '--fisher', 'sample', '--alpha', 'auto']],
  ['LAF', ['laf']],
  ['LAF, published rates', ['laf', '--unlearn-rate', 5e-5, '--align-rate', 1e-4]],
  ['LAF+R, all labels', ['laf', '--supervised-repair']],
  ['LAF+R, 100 labels', ['laf', '--supervised-repair', '--repair-labels', 100]],
  ['fine-tuning', ['finetune']],
  ['amnesiac', ['amnesiac']],
  ['gradient ascent', ['gradient-ascent']],
];

/** Accuracy on its wrong labels says little of how well a model does: the search is told where to go. */
const forWrongLabels = everyMethod.map(([name, method]) =>
  method.includes('auto')
    ? [`${name}, to 12 %`, [...method, '--forget-target', 0.12, '--max-drop', 'accuracy=0.2']]
    : [name, method],
);

async function against(
  title,
  args,
  reference,
  { from = images, methods = everyMethod, relearn = true } = {},
) {
  const rows = [];
  for (const [name, method] of methods) {
    const all = [...from.forget, ...args, ...from.data, '--reference', reference];
    const run = await unlearn(method, from.model, all, { relearn });
    if (!run) {
      rows.push(refused(name));
      continue;
    }
    const { forgetting } = run.result.comparison;
    if (!rows.some((row) => row[' '] === 'before')) {
      rows.unshift(
        imageRow('before', forgetting.before),
        imageRow('retrained', forgetting.reference),
      );
    }
    rows.push(imageRow(name, forgetting.after, run.cpu));
  }
  return [title, table(rows)];
}

async function sentences() {
  const model = at('gpt-moby-planted', 'gpt-moby-planted.onnx');
  const args = [
    ...['--forget', at('gpt-moby-planted', 'planted.yaml')],
    ...['--retain', at('gpt-moby', 'calib.yaml')],
    ...['--eval', at('gpt-moby', 'heldout.yaml')],
    ...['--reference', at('gpt-moby', 'gpt-moby.onnx')],
  ];
  const row = (name, m, cpu) => ({
    perplexity: name,
    'planted sentences': number(m.forget.perplexity),
    'training text': number(m.retain.perplexity),
    'held-out text': number(m.test.perplexity),
    'taken for members, by loss': share(m.membershipByLoss?.forgetRate),
    'CPU s': cpu === undefined ? '' : number(cpu),
  });
  const rows = [];
  const apart = ['ssd', '--batch-size', 4, '--importance-of', 'retain'];
  for (const [name, method] of [
    ['SSD, alpha 10, batch 4', ['ssd', '--alpha', 10, '--batch-size', 4]],
    ['SSD, alpha 10, against retain', [...apart, '--alpha', 10]],
    ['SSD, alpha 5, against retain', [...apart, '--alpha', 5]],
    ['SSD, alpha 3, against retain', [...apart, '--alpha', 3]],
    ['SSD, alpha 2, against retain', [...apart, '--alpha', 2]],
    [
      'gradient ascent, 10 steps of 0.003',
      ['gradient-ascent', '--batch-size', 20, '--learning-rate', 0.003, '--epochs', 10],
    ],
    ['amnesiac, 1 epoch', ['amnesiac', '--batch-size', 16, '--epochs', 1]],
  ]) {
    const run = await unlearn(method, model, args, { relearn: false });
    if (!run) {
      rows.push({ ...row(name, { forget: {}, retain: {}, test: {} }), perplexity: name });
      continue;
    }
    const { forgetting } = run.result.comparison;
    if (rows.length === 0) {
      rows.push(row('before', forgetting.before), row('never saw them', forgetting.reference));
    }
    rows.push(row(name, forgetting.after, run.cpu));
  }
  return ['## Forgetting 20 planted sentences, a language model', table(rows)];
}

const parts = {
  classes,
  laf: lafVariants,
  baselines: () => against('## Class 3, every method', ['--where', 'label=3'], twin('class-3')),
  random: () =>
    against(
      '## 100 random images',
      ['--indices', at('resnet8-retrained', 'random-100.npy')],
      twin('random-100'),
    ),
  mislabelled: () =>
    against(
      '## 1,200 of 4,000 images with wrong labels',
      ['--indices', at('resnet8-mislabelled', 'mislabelled.npy')],
      at('resnet8-mislabelled', 'retrained.onnx'),
      // Nobody wants to know how soon wrong labels are learnt again.
      { from: mislabelled, methods: forWrongLabels, relearn: false },
    ),
  sentences,
};
for (const name of flags.part ?? Object.keys(parts)) {
  publish(
    `unlearn-${name}`,
    `Unlearning: ${name}`,
    await parts[name](),
    'bench/unlearn.js; one thread, every row one run of the command with its defaults but for what is said. "relearn": steps of SGD until 95 % of the forget set\'s accuracy is back.',
  );
}
