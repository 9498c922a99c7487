import type { EvaluationResult } from '../recipe/evaluation.js';
import { bytes, number, percent } from './format.js';
import { metric } from './metric.js';
import { comparisonTable, gateText, measuredOn } from './operation.js';
import { markdownTable, type Table, textTable } from './table.js';
import { wrap } from './text.js';

/** An evaluation for the terminal. */
export const evaluationText = (result: EvaluationResult): string => render(result, textTable);

/** The same as Markdown. */
export const evaluationMarkdown = (result: EvaluationResult): string =>
  `# ${render(result, markdownTable)}\n`;

function render(result: EvaluationResult, draw: (table: Table) => string): string {
  const { model, comparison, data, task, latency, gates } = result;
  const threads = `${latency.threads} thread${latency.threads === 1 ? '' : 's'}`;
  return [
    `evaluate: ${model}`,
    draw(comparison ? comparisonTable(comparison) : valueTable(result)),
    comparison
      ? measuredOn(comparison)
      : wrap(
          `Measured on ${data.samples} examples of ${data.path} (${task}). Latency: one example, ${threads}.`,
        ),
    ...gates.map(gateText),
  ].join('\n\n');
}

function valueTable({ metrics = {}, size, latency }: EvaluationResult): Table {
  return {
    header: ['', 'value'],
    rows: [
      ...Object.entries(metrics).map(([name, value]) => [name, metric(name, value)]),
      ...(size.zeros === undefined
        ? []
        : [['zeros', percent(size.zeros / Math.max(1, size.parameters))]]),
      ['file', bytes(size.bytes)],
      ...(size.gzipBytes === undefined ? [] : [['gzipped', bytes(size.gzipBytes)]]),
      [
        'latency',
        `${number(latency.median)} ms (${number(latency.lowerQuartile)} to ${number(latency.upperQuartile)})`,
      ],
    ],
    numeric: [1],
  };
}
