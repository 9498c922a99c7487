import type { Comparison } from '../evaluate/compare.js';
import type { GateResult } from '../evaluate/gates.js';
import { higherIsBetter } from '../evaluate/metrics.js';
import type { LayerColumn, LayerReport } from '../methods/method.js';
import type { OperationResult } from '../recipe/operation.js';
import { classTable, forgettingMeasuredOn, forgettingTable } from './forgetting.js';
import { bytes, count, duration, number, percent } from './format.js';
import { mergingMeasuredOn, mergingTables } from './merging.js';
import { metric, shares } from './metric.js';
import { markdownTable, type Table, textTable } from './table.js';
import { wrap } from './text.js';

/** Layers shown in the terminal; reports in files have all. */
const shownLayers = 40;

/** An operation's outcome for the terminal. */
export function operationText(
  result: OperationResult,
  columns: LayerColumn<LayerReport>[],
): string {
  const layers = result.layers.filter(({ status }) => status !== 'skipped');
  const hidden = layers.length - shownLayers;
  return [
    headline(result),
    ...(result.comparison ? measured(result.comparison, textTable, result.macs) : []),
    ...(layers.length > 0
      ? [
          textTable(
            layerTable(
              layers.slice(0, shownLayers),
              columns.filter(({ wide }) => !wide),
            ),
          ),
        ]
      : []),
    ...(hidden > 0 ? [`… and ${hidden} more layers (--report FILE.md lists all)`] : []),
    ...skipped(result),
    ...result.gates.map(gateText),
    ...result.notes.map((note) => wrap(`note: ${note}`)),
    ...(result.output
      ? [`written: ${result.output.files.join(', ')} (${bytes(result.output.bytes)})`]
      : []),
  ].join('\n\n');
}

/** The same as a Markdown document, with every layer. */
export function operationMarkdown(
  result: OperationResult,
  columns: LayerColumn<LayerReport>[],
): string {
  return `${[
    `# ${headline(result)}`,
    ...(result.comparison ? measured(result.comparison, markdownTable, result.macs) : []),
    '## Layers',
    markdownTable(
      layerTable(result.layers, [
        ...columns,
        { header: 'why', value: ({ reason }) => reason ?? '' },
      ]),
    ),
    ...result.gates.map(gateText),
    ...(result.notes.length > 0 ? ['## Notes', result.notes.map((n) => `- ${n}`).join('\n')] : []),
    '## Parameters',
    `\`\`\`json\n${JSON.stringify(result.parameters, null, 2)}\n\`\`\``,
    ...(result.provenance
      ? [
          `Made by ${result.provenance.tool} on ${result.provenance.runtime.cpu}, ONNX Runtime ${result.provenance.runtime.onnxruntime}, input sha256 ${result.provenance.inputSha256}.`,
        ]
      : []),
  ].join('\n\n')}\n`;
}

/** Everything that was measured. */
function measured(
  comparison: Comparison,
  draw: (table: Table) => string,
  macs?: OperationResult['macs'],
): string[] {
  const { forgetting, merging } = comparison;
  if (merging)
    return [
      ...mergingTables(merging, draw === markdownTable ? merging.sets.length : undefined).map(
        (table) => draw(table),
      ),
      mergingMeasuredOn(merging),
      draw(comparisonTable(comparison)),
      measuredOn(comparison),
    ];
  if (!forgetting) return [draw(comparisonTable(comparison, macs)), measuredOn(comparison)];
  const classes = classTable(forgetting);
  return [
    draw(forgettingTable(forgetting)),
    ...(classes ? [draw(classes)] : []),
    draw(comparisonTable(comparison)),
    wrap(`${forgettingMeasuredOn(forgetting)}${timing(comparison)}`),
  ];
}

function headline({ method, input, output, layers, seconds }: OperationResult): string {
  const changed = layers.filter(({ status }) => status === 'changed').length;
  const target = output ? ` -> ${output.path}` : '';
  return `${method}: ${input.path}${target}, ${changed} of ${layers.length} layers, ${duration(seconds)}`;
}

/** Before, after and the change of everything that was measured. */
export function comparisonTable(
  { metrics, fidelity = {}, size, latency }: Comparison,
  macs?: OperationResult['macs'],
): Table {
  const rows: string[][] = [];
  for (const name of Object.keys(metrics?.after ?? {})) {
    const [a, b] = [metrics?.before[name] ?? Number.NaN, metrics?.after[name] ?? Number.NaN];
    rows.push([name, metric(name, a), metric(name, b), change(name, a, b)]);
  }
  for (const [name, value] of Object.entries(fidelity))
    rows.push([`${name} to original`, '', metric(name, value), '']);
  const { before, after } = size;
  // Packed weights count otherwise: what they are is told by layer.
  const comparable = before.parameters === after.parameters || macs !== undefined;
  if (comparable && before.zeros !== undefined && after.zeros !== undefined) {
    rows.push([
      'zeros',
      percent(before.zeros / before.parameters),
      percent(after.zeros / after.parameters),
      '',
    ]);
  }
  if (comparable && before.parameters !== after.parameters)
    rows.push([
      'parameters',
      count(before.parameters),
      count(after.parameters),
      ratio(after.parameters / before.parameters),
    ]);
  if (macs && macs.before !== macs.after)
    rows.push(['MACs', count(macs.before), count(macs.after), ratio(macs.after / macs.before)]);
  rows.push(['file', bytes(before.bytes), bytes(after.bytes), ratio(after.bytes / before.bytes)]);
  if (before.gzipBytes !== undefined && after.gzipBytes !== undefined) {
    rows.push([
      'gzipped',
      bytes(before.gzipBytes),
      bytes(after.gzipBytes),
      ratio(after.gzipBytes / before.gzipBytes),
    ]);
  }
  if (latency) {
    const [a, b] = [latency.before.median, latency.after.median];
    rows.push(['latency', `${number(a)} ms`, `${number(b)} ms`, ratio(b / a)]);
  }
  return { header: ['', 'before', 'after', 'change'], rows, numeric: [1, 2, 3] };
}

export function measuredOn(comparison: Comparison): string {
  const { on, unmeasured } = comparison;
  const data = {
    labelled: `Measured on ${on.samples} examples of ${on.path} (${on.task}).`,
    unlabelled: `No labelled data (--eval): outputs compared with the original's on ${on.samples} examples of ${on.path}.`,
    random: `No data at all: outputs compared on ${on.samples} RANDOM inputs, which says little about real ones.`,
    nothing: `Outputs were not compared: ${unmeasured}`,
  }[on.kind];
  return wrap(data + timing(comparison));
}

const timing = ({ latency }: Comparison): string =>
  latency
    ? ` Latency: one example, ${latency.threads} thread${latency.threads === 1 ? '' : 's'}, median of interleaved runs.`
    : '';

/** Columns that say nothing, or the same of every layer, are left out. */
function layerTable(layers: LayerReport[], columns: LayerColumn<LayerReport>[]): Table {
  const status: LayerColumn<LayerReport> = { header: 'status', value: (layer) => layer.status };
  const mixed = new Set(layers.map(status.value)).size > 1;
  const shown = [...(mixed ? [status] : []), ...columns].filter(({ value }) => layers.some(value));
  return {
    header: ['layer', 'shape', ...shown.map(({ header }) => header)],
    rows: layers.map((layer) => [
      layer.name,
      layer.shape?.join(' x ') ?? '',
      ...shown.map(({ value }) => value(layer)),
    ]),
    numeric: [1],
  };
}

/** Skipped layers, gathered by reason. */
function skipped({ layers }: OperationResult): string[] {
  const reasons = new Map<string, string[]>();
  for (const { status, reason = '', name } of layers) {
    if (status === 'skipped') reasons.set(reason, [...(reasons.get(reason) ?? []), name]);
  }
  return [...reasons].map(([reason, names]) => {
    const more = names.length > 3 ? ` and ${names.length - 3} more` : '';
    return wrap(`skipped, ${reason}: ${names.slice(0, 3).join(', ')}${more}`);
  });
}

export const gateText = ({ gate, passed, detail }: GateResult): string =>
  wrap(`${passed ? 'passed' : 'FAILED'}: ${gate} (${detail})`);

function change(name: string, before: number, after: number): string {
  const difference = after - before;
  const sign = difference > 0 ? '+' : difference < 0 ? '-' : '';
  const better = difference === 0 ? '' : difference > 0 === higherIsBetter[name] ? '' : ' worse';
  const size = Math.abs(difference);
  return `${sign}${shares.has(name) ? `${(100 * size).toFixed(2)} pp` : number(size)}${better}`;
}

const ratio = (value: number): string => `${value.toFixed(2)}x`;
