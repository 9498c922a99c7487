/**
 * How fast ONNX Runtime is on what `resect ternarize` writes, how small the files are, how long they
 * take to load and what they need in memory: chains of linear layers in every format, and a decoder.
 *
 *   npm run build && node bench/ternarize-speed.js [--rounds 40]
 */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { makeNode } from '../dist/src/graph/build.js';
import {
  dtypeCode,
  encodeModel,
  makeTensor,
  methods,
  operate,
  readModel,
} from '../dist/src/index.js';
import { uniform } from './support/arrays.js';
import { median, runNode, withFolder } from './support/measure.js';
import { megabytes, publish, seconds, table, times } from './support/report.js';
import { writeTransformer } from './support/transformer.js';

const { values: flags } = parseArgs({ options: { rounds: { type: 'string', default: '40' } } });
const rounds = Number(flags.rounds);
/** Processes that load each file, in turns. */
const loads = 5;
/** Layers of a chain by their width: 64 MB of float32 weights or more, past the caches nearest to a core. */
const chains = { 1024: 16, 2048: 8, 4096: 4 };
/** Rows of a chain's input, and runs in each round. */
const rowRuns = { 1: 5, 32: 2 };
/** Where formats change places, at one width: more rows, and runs in each round. */
const between = { width: 2048, rowRuns: { 2: 3, 4: 3, 8: 3, 16: 2 } };
const decoder = { blocks: 12, width: 768, inner: 3072, heads: 12, vocabulary: 16384 };
const tokenRuns = 5;

const formats = {
  ort: { format: 'ort' },
  'ort --pack trits': { format: 'ort', pack: 'trits' },
  ort4: { format: 'ort4' },
  'standard-int8': { format: 'standard-int8' },
  standard: { format: 'standard' },
};
const aims = { row: { ort: 4 }, rows: { 'standard-int8': 3 }, decoder: { ort: 3 } };

const loadOnce = fileURLToPath(new URL('support/load-once.js', import.meta.url));

const random = uniform(7);
/** Weights with which outputs are about as large as inputs. */
const weight = (name, from, to) => {
  const scale = Math.sqrt(12 / from);
  const values = Float32Array.from({ length: from * to }, () => (random() - 0.5) * scale);
  const bytes = new Uint8Array(values.buffer);
  return makeTensor({ name, dtype: 'float32', shape: [from, to], bytes });
};

const floats = (name, ...dims) => ({
  name,
  type: {
    tensorType: {
      elemType: dtypeCode('float32'),
      shape: { dim: dims.map((d) => (typeof d === 'string' ? { dimParam: d } : { dimValue: d })) },
    },
  },
});

/** Writes MatMul layers one after the other, no two with the same weights. */
function writeChain(path, width, layers) {
  const numbers = Array.from({ length: layers }, (_, i) => i);
  const graph = {
    name: 'chain',
    node: numbers.map((i) => makeNode('MatMul', [`x${i}`, `w${i}`], `x${i + 1}`)),
    initializer: numbers.map((i) => weight(`w${i}`, width, width)),
    valueInfo: [],
    input: [floats('x0', 'rows', width)],
    output: [floats(`x${layers}`, 'rows', width)],
  };
  const opsetImport = [{ domain: '', version: 17 }];
  writeFileSync(
    path,
    encodeModel({ irVersion: 8, opsetImport, producerName: 'resect bench', graph }),
  );
}

/** Writes a transformer with a head that is not tied to its embedding. */
async function writeDecoder(path) {
  writeTransformer(path, decoder);
  const { proto } = await readModel(path);
  const { graph } = proto;
  const [{ name: hidden }] = graph.output;
  graph.node.push(makeNode('MatMul', [hidden, 'head'], 'logits'));
  graph.initializer.push(weight('head', decoder.width, decoder.vocabulary));
  graph.output = [floats('logits', 'batch', 'sequence', decoder.vocabulary)];
  writeFileSync(path, encodeModel(proto));
}

const rowsOf = (count, width) => ({
  x0: new Tensor(
    'float32',
    Float32Array.from({ length: count * width }, () => random() - 0.5),
    [count, width],
  ),
});

const open = (file) =>
  InferenceSession.create(file, {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 4,
  });

/**
 * The original and what is made of it in every format, each opened.
 * @param first whether the first and the last layer are packed, too
 */
async function variantsOf(model, folder, { chosen, firstLast }) {
  const variants = [{ name: 'fp32', file: model, kernel: '', session: await open(model) }];
  for (const name of chosen) {
    const output = join(folder, `${variants.length}-of-${model.split('/').at(-1)}`);
    const { layers } = await operate({
      method: methods.ternarize,
      parameters: { method: 'fit', firstLast, ...formats[name] },
      model,
      output,
      threads: 1,
    });
    const packed = layers.filter(({ status }) => status === 'changed');
    if (firstLast && packed.length < layers.length) throw new Error(`${output}: layers skipped`);
    const kernel = [...new Set(packed.map(({ kernel }) => kernel))].join(', ');
    variants.push({ name, file: output, kernel, session: await open(output) });
  }
  return variants;
}

/** Adds to each case the median CPU seconds of a run; all take turns. */
async function measureRuns(cases) {
  const spent = cases.map(() => []);
  for (let round = 0; round <= rounds; round++)
    for (const [i, { session, feeds, runs }] of cases.entries())
      for (let run = 0; run < runs; run++) {
        const start = process.cpuUsage();
        await session.run(feeds);
        const { user, system } = process.cpuUsage(start);
        // The first round warms up.
        if (round > 0) spent[i].push((user + system) / 1e6);
      }
  for (const [i, it] of cases.entries()) it.seconds = median(spent[i]);
}

/** Adds to each variant median seconds of loading, and bytes of memory that it takes; all take turns. */
async function measureLoads(variants) {
  const seen = variants.map(() => []);
  for (let round = 0; round < loads; round++)
    for (const [i, { file }] of variants.entries()) {
      const { peak, stdout } = await runNode(loadOnce, [file]);
      const { load, before, after } = JSON.parse(stdout);
      seen[i].push({ load, growth: after - before, peak: peak - before });
    }
  for (const [i, variant] of variants.entries())
    for (const key of ['load', 'growth', 'peak'])
      variant[key] = median(seen[i].map((one) => one[key]));
}

const sizes = ({ file, load, growth, peak }, original) => {
  const bytes = statSync(file).size;
  return {
    file: `${(bytes / 1e6).toFixed(1)} MB`,
    'of fp32': (bytes / statSync(original.file).size).toFixed(3),
    load: seconds(load),
    memory: megabytes(growth),
    'at most': megabytes(peak),
  };
};

const faster = (cases, name, original = cases[0]) =>
  original.seconds / cases.find(({ variant }) => variant.name === name).seconds;

await withFolder(async (folder) => {
  const networks = [];
  for (const [width, layers] of Object.entries(chains)) {
    const model = join(folder, `chain-${width}.onnx`);
    writeChain(model, Number(width), layers);
    const chosen = Object.keys(formats);
    const variants = await variantsOf(model, folder, { chosen, firstLast: true });
    const counts = Number(width) === between.width ? { ...rowRuns, ...between.rowRuns } : rowRuns;
    const inputs = Object.entries(counts).map(([rows, runs]) => ({
      key: rows,
      feeds: rowsOf(Number(rows), Number(width)),
      runs,
    }));
    networks.push({ width: Number(width), layers, variants, inputs });
  }
  const whole = join(folder, 'decoder.onnx');
  await writeDecoder(whole);
  const token = new Tensor('int64', BigInt64Array.of(1n), [1, 1]);
  networks.push({
    variants: await variantsOf(whole, folder, { chosen: ['ort'], firstLast: false }),
    inputs: [{ key: 'token', feeds: { input_ids: token }, runs: tokenRuns }],
  });

  for (const network of networks)
    network.cases = network.inputs.flatMap(({ key, feeds, runs }) =>
      network.variants.map((variant) => ({ key, variant, session: variant.session, feeds, runs })),
    );
  await measureRuns(networks.flatMap(({ cases }) => cases));
  const variants = networks.flatMap(({ variants }) => variants);
  for (const { session } of variants) await session.release();
  await measureLoads(variants);

  const linear = networks.slice(0, -1);
  const [full] = networks.slice(-1);
  const under = (cases, wanted) => cases.filter(({ key }) => key === wanted);
  const rows = linear.flatMap(({ width, layers, variants, cases }) =>
    variants.map((variant, i) => {
      const row = { layers: i === 0 ? `${layers} of ${width}` : '', format: variant.name };
      row.kernel = variant.kernel;
      for (const count of Object.keys(rowRuns)) {
        const all = under(cases, count);
        const plural = count === '1' ? 'row' : 'rows';
        row[`${count} ${plural}, us a layer`] = Math.round((1e6 * all[i].seconds) / layers);
        row[`faster, ${count}`] = times(all[0].seconds / all[i].seconds);
      }
      return { ...row, ...sizes(variant, variants[0]) };
    }),
  );
  const middle = linear.find(({ width }) => width === between.width);
  const byRows = middle.variants.slice(1).map((variant) => ({
    [`faster, width ${between.width}`]: variant.name,
    ...Object.fromEntries(
      Object.keys({ ...rowRuns, ...between.rowRuns }).map((count) => [
        `${count} rows`,
        times(faster(under(middle.cases, count), variant.name)),
      ]),
    ),
  }));
  const decoderRows = full.cases.map(({ variant, seconds: spent }) => ({
    format: variant.name,
    'a token, ms': Number((1e3 * spent).toPrecision(3)),
    faster: times(full.cases[0].seconds / spent),
    ...sizes(variant, full.variants[0]),
  }));
  const goals = [];
  const check = (aim, got, wanted) =>
    goals.push({
      aim,
      faster: times(got),
      wanted: times(wanted),
      met: got >= wanted ? 'yes' : 'NO',
    });
  for (const { width, cases } of linear) {
    for (const [name, wanted] of Object.entries(aims.row))
      check(`${name}, width ${width}, 1 row`, faster(under(cases, '1'), name), wanted);
    for (const [name, wanted] of Object.entries(aims.rows))
      check(`${name}, width ${width}, 32 rows`, faster(under(cases, '32'), name), wanted);
  }
  for (const [name, wanted] of Object.entries(aims.decoder))
    check(`${name}, decoder`, faster(full.cases, name), wanted);

  const million = (count) => `${(count / 1e6).toFixed(0)} M`;
  const { blocks, width, inner, vocabulary } = decoder;
  const blockWeights = blocks * (4 * width * width + 2 * width * inner);
  publish(
    'ternarize-speed',
    'Speed, size, load time and memory of ternary models',
    [
      'Chains of square MatMul layers, one after the other, with random weights; all are packed:',
      table(rows),
      'By rows at once, which `--format auto` goes by:',
      table(byRows),
      `A decoder of ${million(blockWeights + 2 * vocabulary * width)} parameters with random weights: ${blocks} blocks of width ${width} and ${inner} inside, vocabulary of ${vocabulary}. Its head and its embedding stay float32, ${million(vocabulary * width)} parameters each. One token is computed at a time, that sees no other:`,
      table(decoderRows),
      table(goals),
      'Formats are those of `resect ternarize --method fit`, other parameters by default: groups of 128 weights share a scale, all weights of an output in standard-int8. "Load" is CPU time until the session is open. "Memory" is resident memory that loading and one run added and kept, "at most" what they added at any time. What ternary weights cost in accuracy is another question: random ones have none.',
    ],
    `bench/ternarize-speed.js; one thread, CPU time of the process, medians of ${rounds} rounds in which every model has its turn, in one process; load and memory are medians of ${loads} processes each.`,
  );
});
