/**
 * How fast ONNX Runtime is on what `resect compress` writes, and how small the files are: a network of
 * six convolutions, pruned, in integers, and both, in one process in turns.
 *
 *   npm run build && node bench/compress-latency.js [--rounds 100]
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { batches, modelInputs, openDataset, readModel } from '../dist/src/index.js';
import { compressed, models } from './support/compressed.js';
import { median, withFolder } from './support/measure.js';
import { publish, table, times } from './support/report.js';

const { values: flags } = parseArgs({
  options: { rounds: { type: 'string', default: '100' } },
});
const rounds = Number(flags.rounds);
/** Images in a run, and runs in each round. */
const batchRuns = { 100: 1, 1: 20 };
const half = { ratio: 0.5, align: 16 };
const int8 = { bits: 8, format: 'qdq' };
const keepsResidual = { layerRatio: ['conv4=0'] };
/** Dequantizes weights once, when the model is loaded. */
const dequantized = { extra: { session: { disable_quant_qdq: '1' } } };

const files = {
  'half the channels': half,
  'half, residual stream kept': { ...half, ...keepsResidual },
  'int8 (qdq)': int8,
  'half and int8': { ...half, ...int8 },
  'half and int8, residual stream kept': { ...half, ...int8, ...keepsResidual },
  'int8 weights (weight-only)': { bits: 8, format: 'weight-only' },
  'int4 weights (weight-only)': { bits: 4, format: 'weight-only' },
  'half and int4 weights': { ...half, bits: 4, format: 'weight-only' },
};
const goals = [
  { name: 'half the channels', faster: 1.8 },
  { name: 'half and int8', faster: 2.5, smaller: 7 },
];

const open = (file, options) =>
  InferenceSession.create(file, {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 4,
    ...options,
  });

/** The first `count` test images, as the network's input. */
async function images(model, count) {
  const inputs = modelInputs((await readModel(model.file)).proto);
  const dataset = await openDataset(model.eval, inputs);
  const indices = Array.from({ length: count }, (_, i) => i);
  for await (const { feeds } of batches(dataset, indices, count, inputs))
    return Object.fromEntries(
      Object.entries(feeds).map(([name, { data, dims }]) => [
        name,
        new Tensor('float32', data, dims),
      ]),
    );
}

const logits = async (session, feeds) => (await session.run(feeds))[session.outputNames[0]].data;

const largest = (values) => values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);

/** Largest difference of the answers with and without the runtime's rewriting of the graph, by the largest logit. */
async function optimizationError(file, session, feeds) {
  const plain = await open(file, { graphOptimizationLevel: 'disabled' });
  const [a, b] = [await logits(session, feeds), await logits(plain, feeds)];
  await plain.release();
  return largest(a.map((x, i) => x - b[i])) / largest(b);
}

/** Median milliseconds of a run of each session, all in turns. */
async function latencies(variants, feeds, runs) {
  const spent = variants.map(() => []);
  for (let round = 0; round <= rounds; round++)
    for (const [i, { session }] of variants.entries())
      for (let run = 0; run < runs; run++) {
        const start = performance.now();
        await session.run(feeds);
        // The first round warms up.
        if (round > 0) spent[i].push(performance.now() - start);
      }
  return spent.map(median);
}

await withFolder(async (folder) => {
  const { netA } = models(folder);
  const before = statSync(netA.file).size;
  const variants = [];
  const add = async (name, file, accuracy, options = {}) =>
    variants.push({ name, file, accuracy, session: await open(file, options) });
  for (const [name, parameters] of Object.entries(files)) {
    const output = join(folder, `${variants.length}.onnx`);
    const { comparison } = await compressed(netA, { parameters, output });
    if (variants.length === 0)
      await add('as it was (fp32)', netA.file, comparison.metrics.before.accuracy);
    const { accuracy } = comparison.metrics.after;
    await add(name, output, accuracy);
    if (parameters.format === 'weight-only')
      await add(`${name}, disable_quant_qdq`, output, accuracy, dequantized);
  }

  const hundred = await images(netA, 100);
  const measured = new Map();
  for (const [batch, runs] of Object.entries(batchRuns))
    measured.set(batch, await latencies(variants, await images(netA, Number(batch)), runs));
  const rows = [];
  for (const [i, { name, file, accuracy, session }] of variants.entries()) {
    const bytes = statSync(file).size;
    const row = { ' ': name };
    for (const [batch, all] of measured) {
      row[`${batch} image${batch === '1' ? '' : 's'}, ms`] = Number(all[i].toPrecision(3));
      row[`faster, ${batch}`] = times(all[0] / all[i]);
    }
    rows.push({
      ...row,
      kB: Math.round(bytes / 1e3),
      smaller: times(before / bytes),
      accuracy: `${(100 * accuracy).toFixed(1)} %`,
      'optimized or not': (await optimizationError(file, session, hundred)).toExponential(0),
    });
  }
  const row = (name) => rows.find((row) => row[' '] === name);
  const aims = goals.map(({ name, faster, smaller }) => ({
    aim: name,
    'faster, 100 images': row(name)['faster, 100'],
    wanted: times(faster),
    smaller: row(name).smaller,
    'wanted ': smaller ? times(smaller) : '',
  }));
  for (const { session } of variants) await session.release();
  publish(
    'compress-latency',
    'Speed and size of compressed models',
    [
      table(rows),
      table(aims),
      'Network: fixtures/golden/udfc/netA.onnx, 28 x 28 images, convolutions of 32, 48 (stride 2), 48 and 64 (stride 2) channels and a residual block of 64. "Half": --ratio 0.5 --align 16; "residual stream kept": only channels that reach no Add may go (--layer-ratio conv4=0). No data was used. "Optimized or not": the largest difference between logits with all graph optimizations and with none, by the largest logit. disable_quant_qdq: a session option of ONNX Runtime that makes weights floats again when the model is loaded.',
    ],
    `bench/compress-latency.js; one thread, medians of ${rounds} rounds in which every model has its turn, in one process.`,
  );
});
