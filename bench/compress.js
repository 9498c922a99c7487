/**
 * What `resect compress` does to the accuracy of the project's image classifiers: every method, at
 * several ratios and bits, without data and with unlabelled images.
 *
 *   npm run build && node bench/compress.js [--part methods|folded|select|rounding|formats]
 *
 * Parts that are not named stay as they are in results/.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { compressed, models as modelsIn } from './support/compressed.js';
import { withFolder } from './support/measure.js';
import { publish, table } from './support/report.js';

const { values: flags } = parseArgs({ options: { part: { type: 'string', multiple: true } } });
const ratios = [0.3, 0.5];
const allBits = [8, 6, 4, 3];
const samples = 128;
const share = (x) => `${(100 * x).toFixed(1)} %`;

/** What is asked for, as few words as say it. */
const nameOf = ({ ratio, bits }) =>
  [ratio && `${100 * ratio} %`, bits && `${bits} bits`].filter(Boolean).join(', ');

const pruned = ratios.map((ratio) => ({ ratio }));
const rounded = allBits.map((bits) => ({ bits }));
const both = ratios.flatMap((ratio) => allBits.map((bits) => ({ ratio, bits })));

/** Settings that tell ways to round apart. */
const isFew = ({ ratio, bits }) => ratio === 0.3 && bits <= 4;

/** Parts of a model whose channels may go. */
const everything = { title: 'all channels', parameters: ({ ratio }) => ratio && { ratio } };
const insideBlocks = {
  title: 'only channels that reach no Add, inside blocks',
  parameters: ({ ratio }) => ratio && { layerRatio: [`*/a/conv*=${ratio}`] },
};
const notResidual = {
  title: 'only channels that reach no Add, of conv1, conv2, conv3 and convA',
  parameters: ({ ratio }) => ratio && { ratio, layerRatio: ['conv4=0'] },
};

const ways = {
  drop: { method: 'drop' },
  'neuron-merging': { method: 'neuron-merging' },
  udfc: { method: 'udfc' },
  gauss: { method: 'gauss' },
  [`gauss, ${samples} images`]: { method: 'gauss', samples },
};
const pick = (...names) => Object.fromEntries(names.map((name) => [name, ways[name]]));

await withFolder(async (folder) => {
  const models = modelsIn(folder);
  const measured = new Map();

  /** Accuracy before and after, of weights that are rounded but stored as floats. */
  async function accuracy(name, { samples, ...parameters }) {
    const key = JSON.stringify([name, samples, parameters]);
    if (!measured.has(key)) {
      console.error(key);
      const output = join(folder, 'out.onnx');
      const all = { align: 1, format: 'float', ...parameters };
      const { comparison } = await compressed(models[name], { parameters: all, output, samples });
      measured.set(key, comparison.metrics);
    }
    const { before, after } = measured.get(key);
    return { before: before.accuracy, after: after.accuracy };
  }

  /** A row per setting, a column per way. */
  async function grid(name, settings, columns, scope = everything) {
    const rows = [];
    for (const { ratio, bits } of settings) {
      const row = { ' ': nameOf({ ratio, bits }) };
      for (const [column, way] of Object.entries(columns)) {
        const parameters = { ...scope.parameters({ ratio }), ...(bits && { bits }) };
        row[column] = share((await accuracy(name, { ...parameters, ...way })).after);
      }
      rows.push(row);
    }
    return table(rows);
  }

  const before = async (name) => share((await accuracy(name, { bits: 8 })).before);

  /** Where dropping, UDFC and gauss are not in this order of accuracy. */
  async function disorder(name, scope) {
    const found = [];
    for (const setting of pruned) {
      const values = [];
      for (const method of ['drop', 'udfc', 'gauss'])
        values.push((await accuracy(name, { ...scope.parameters(setting), method })).after);
      const [drop, udfc, gauss] = values;
      if (!(drop < udfc && udfc < gauss))
        found.push(`${name}, ${scope.title}, ${nameOf(setting)} (${values.map(share).join(', ')})`);
    }
    return found;
  }

  const parts = {
    async methods() {
      const sections = [];
      const wrong = [];
      for (const [name, scopes] of Object.entries({
        netA: [notResidual, everything],
        resnet8: [insideBlocks, everything],
        vgg7: [everything],
        mobile7: [everything],
      }))
        for (const [i, scope] of scopes.entries()) {
          // Without pruning the scope makes no difference.
          const settings = [...pruned, ...(i === 0 ? rounded : []), ...both];
          sections.push(
            `## ${name}: ${scope.title}`,
            `Before: ${await before(name)}.`,
            await grid(name, settings, ways, scope),
          );
          wrong.push(...(await disorder(name, scope)));
        }
      const order = wrong.length === 0 ? 'everywhere' : `but for ${wrong.join('; ')}`;
      return [`Pruned alone, drop < udfc < gauss: ${order}.`, ...sections];
    },

    async folded() {
      const columns = pick('drop', 'udfc', 'gauss', `gauss, ${samples} images`);
      const settings = [...pruned, { bits: 4 }, { ratio: 0.3, bits: 4 }, { ratio: 0.5, bits: 4 }];
      const sections = [];
      for (const scope of [insideBlocks, everything])
        sections.push(`## ${scope.title}`, await grid('folded', settings, columns, scope));
      return [
        'resnet8 with its BatchNormalizations folded into the convolutions, as exporters do.',
        ...sections,
      ];
    },

    async select() {
      const columns = Object.fromEntries(
        ['l1', 'l2', 'gm', 'greedy'].map((select) => [select, { select }]),
      );
      const settings = pruned;
      const sections = [];
      for (const method of ['udfc', 'gauss'])
        for (const [name, scope] of [
          ['netA', notResidual],
          ['netA', everything],
          ['resnet8', insideBlocks],
          ['resnet8', everything],
          ['vgg7', everything],
          ['mobile7', everything],
        ]) {
          const ways = Object.entries(columns).map(([c, way]) => [c, { ...way, method }]);
          sections.push(
            `**${method}, ${name}**, ${scope.title}:`,
            await grid(name, settings, Object.fromEntries(ways), scope),
          );
        }
      return sections;
    },

    async rounding() {
      const few = [...[4, 3, 2].map((bits) => ({ bits })), ...both.filter(isFew)];
      const sections = [];
      for (const name of ['netA', 'resnet8', 'vgg7', 'mobile7']) {
        const ways = {
          drop: { method: 'drop' },
          udfc: { method: 'udfc' },
          'udfc, --quant-scale': { method: 'udfc', quantScale: true },
          gauss: { method: 'gauss' },
          [`gauss, ${samples} images`]: { method: 'gauss', samples },
        };
        const wide = (granularity) =>
          Object.fromEntries(
            Object.entries(ways).map(([way, parameters]) => [way, { ...parameters, granularity }]),
          );
        sections.push(
          `## ${name}`,
          `Before: ${await before(name)}. One scale for each output channel:`,
          await grid(name, few, wide('channel')),
          'One scale for a whole weight (--granularity tensor):',
          await grid(name, [{ bits: 8 }, { bits: 4 }, { bits: 3 }], wide('tensor')),
        );
      }
      return sections;
    },

    async formats() {
      const rows = [];
      const formats = {
        float: { format: 'float' },
        'weight-only': { format: 'weight-only' },
        qdq: { format: 'qdq' },
        [`qdq, ${samples} images`]: { format: 'qdq', samples },
      };
      for (const name of ['netA', 'resnet8', 'folded', 'vgg7', 'mobile7'])
        for (const setting of [{ bits: 8 }, { ratio: 0.3, bits: 8 }, { bits: 4 }]) {
          const row = { ' ': `${name}, ${nameOf(setting)}` };
          for (const [column, format] of Object.entries(formats))
            row[column] = share((await accuracy(name, { ...setting, ...format })).after);
          rows.push(row);
        }
      return [
        'The same rounded weights, stored in each format; qdq computes in integers, so rounds activations to 8 bits too. Calibrated rows also repair by what was measured.',
        table(rows),
      ];
    },
  };

  const titles = {
    methods: 'Compression without data: methods',
    folded: 'Compression: BatchNormalization folded away',
    select: 'Compression: which channels go',
    rounding: 'Compression: bits, and scales of weights',
    formats: 'Compression: formats',
  };
  for (const part of flags.part ?? Object.keys(parts))
    publish(
      part === 'methods' ? 'compress' : `compress-${part}`,
      titles[part],
      await parts[part](),
      `bench/compress.js; accuracy on 2,000 test images of Fashion-MNIST (standard error 0.6 points near 93 %, 1.1 near 50 %), every number one run of the command with its defaults but for what is said, and --align 1, so that ratios are exact${part === 'formats' ? '' : ', and --format float, so that only weights are rounded'}. The first layer and the last keep 8 bits (--edge-bits). No data, but for the columns that name images: those are unlabelled, of the training set.`,
    );
});
