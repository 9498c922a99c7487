/**
 * How much longer a model that merges itself takes than a single one: a network of ResNet-18's size, and
 * the small networks of fixtures/merging. One thread, batches of 32, all in turns.
 *
 *   npm run build && node bench/merging-latency.js [--rounds 9]
 */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { normal, randomFeeds, uniform } from '../dist/src/data/index.js';
import {
  encodeFloat32,
  methods,
  modelInputs,
  operate,
  readModel,
  readTensorFloat32,
  Session,
  tensorInfo,
  writeModel,
} from '../dist/src/index.js';
import { median, withFolder } from './support/measure.js';
import { publish, table, times } from './support/report.js';
import { writeResNet18 } from './support/resnet18.js';

const { values: flags } = parseArgs({ options: { rounds: { type: 'string', default: '9' } } });
const rounds = Number(flags.rounds);
const batch = 32;
const fixture = (name) =>
  fileURLToPath(new URL(`../fixtures/merging/${name}.onnx`, import.meta.url));

/** A copy of a model with every weight moved by about 5 %. */
async function writeMoved(from, to) {
  const model = await readModel(from);
  const random = normal(uniform(5));
  for (const tensor of model.proto.graph.initializer) {
    const { dtype } = tensorInfo(tensor);
    if (dtype !== 'float32') continue;
    const moved = (await readTensorFloat32(model, tensor)).map((v) => v * (1 + 0.05 * random()));
    model.edits.set(tensor, () => encodeFloat32(moved, dtype));
  }
  await writeModel(model, to);
}

/** Median milliseconds of a batch by each model, in turns. */
async function latencies(files, runs) {
  const sessions = [];
  for (const file of files) sessions.push(await Session.open(file, { threads: 1 }));
  const feeds = randomFeeds(modelInputs((await readModel(files[0])).proto), batch, 1);
  const spent = files.map(() => []);
  for (let round = 0; round <= rounds; round++)
    for (const [i, session] of sessions.entries()) {
      const start = performance.now();
      for (let k = 0; k < runs; k++) await session.run(feeds);
      if (round > 0) spent[i].push((performance.now() - start) / runs);
    }
  for (const session of sessions) await session.release();
  return spent.map(median);
}

/** @param calib clusters need samples: without them that mode is left out */
async function measured({ expert, generalist, calib, runs }, folder) {
  const files = [expert];
  const modes = ['batch', 'sample', ...(calib ? ['cluster'] : [])];
  for (const mode of modes) {
    const output = join(folder, `${mode}.onnx`);
    await operate({
      method: methods.t3,
      parameters: { mode, form: 'centred' },
      model: expert,
      output,
      force: true,
      calib,
      merging: { others: [generalist], names: ['expert', 'generalist'] },
    });
    files.push(output);
  }
  const found = await latencies(files, runs);
  return ['single model', ...modes.map((mode) => `--mode ${mode}`)].map((model, i) => ({
    model,
    'ms per batch': Number(found[i].toPrecision(3)),
    time: times(found[i] / found[0]),
    file: `${(statSync(files[i]).size / 1e6).toPrecision(3)} MB`,
    ratio: found[i] / found[0],
  }));
}

await withFolder(async (folder) => {
  const [generalist, expert] = ['g', 'e'].map((name) => join(folder, `${name}.onnx`));
  await writeResNet18(generalist);
  await writeMoved(generalist, expert);
  const calib = fileURLToPath(new URL('../fixtures/merging/calib.yaml', import.meta.url));
  const small = {
    expert: fixture('expert-a'),
    generalist: fixture('generalist'),
    calib,
    runs: 100,
  };
  const smallRows = await measured(small, folder);
  const large = await measured({ expert, generalist, runs: 1 }, folder);
  const [, inBatches, perSample] = large;
  const aims = [
    ['batch', inBatches, 3.3],
    ['sample', perSample, 5],
  ].map(
    ([mode, { ratio }, aim]) =>
      `--mode ${mode}: ${times(ratio)}, aim at most ${times(aim)}: ${ratio <= aim ? 'met' : 'missed'}.`,
  );
  const shown = (rows) => table(rows.map(({ ratio: _, ...row }) => row));
  publish(
    'merging-latency',
    'Time of models that merge themselves',
    [
      '## ResNet-18 (11.7 M parameters, 224 x 224, random weights)',
      shown(large),
      aims.join(' '),
      'In batches two passes are those of the single model. The third runs on merged weights, which are no constants: ONNX Runtime can neither fold BatchNormalizations into them nor lay them out for its fastest convolution, and takes about 1.4 times as long.',
      '## fixtures/merging (44 thousand parameters, 28 x 28)',
      shown(smallRows),
    ],
    `batches of ${batch}, one thread, median of ${rounds} rounds in which all models take turns.`,
  );
});
