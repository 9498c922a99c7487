import type { Inspection, LinearLayerSummary } from '../evaluate/inspect.js';
import type { Port } from '../graph/interface.js';
import { bytes, percent } from './format.js';
import { textTable } from './table.js';
import { wrap } from './text.js';

/** One model for the terminal. */
export function inspectText(i: Inspection): string {
  const { size } = i;
  const facts = [
    `IR ${i.irVersion ?? '?'}`,
    `opsets ${Object.entries(i.opsets)
      .map(([d, v]) => `${d} ${v}`)
      .join(', ')}`,
    ...(i.producer ? [`made by ${i.producer}`] : []),
  ];
  return [
    `${i.path}\n${wrap(facts.join(' · '))}`,
    textTable({
      header: ['', 'name', 'type', 'shape'],
      rows: [...i.inputs.map((p) => portRow('in', p)), ...i.outputs.map((p) => portRow('out', p))],
    }),
    textTable({ header: ['', ''], rows: sizeRows(i) })
      .split('\n')
      .slice(2)
      .join('\n'),
    wrap(`${i.nodes} nodes: ${counts(i.ops)}`),
    ...(i.layers.length > 0 ? [layerTable(i.layers)] : ['no linear layers']),
    ...(size.zeros === undefined
      ? [
          wrap(
            'Weights were not read: the model is large. --weights reads them all, for zeros and the gzipped size.',
          ),
        ]
      : []),
    ...(Object.keys(i.metadata).length > 0
      ? [
          Object.entries(i.metadata)
            .map(([k, v]) => `${k}: ${v.length > 100 ? `${v.slice(0, 99)}…` : v}`)
            .join('\n'),
        ]
      : []),
  ].join('\n\n');
}

/** Several models side by side: one row each. */
export function inspectionsText(all: Inspection[]): string {
  return textTable({
    header: ['model', 'nodes', 'layers', 'parameters', 'zeros', 'file', 'gzipped'],
    rows: all.map(({ path, nodes, layers, size }) => [
      path,
      String(nodes),
      String(layers.filter((l) => !l.skip).length),
      size.parameters.toLocaleString('en'),
      size.zeros === undefined ? '' : percent(size.zeros / Math.max(1, size.parameters)),
      bytes(size.bytes),
      size.gzipBytes === undefined ? '' : bytes(size.gzipBytes),
    ]),
    numeric: [1, 2, 3, 4, 5, 6],
  });
}

const portRow = (kind: string, { name, dtype, dims }: Port): string[] => [
  kind,
  name,
  dtype,
  dims.map((d) => (d === '' ? '?' : d)).join(' x ') || 'scalar or unknown',
];

function sizeRows({ size, tensors, externalFiles, functions }: Inspection): string[][] {
  return [
    ['parameters', size.parameters.toLocaleString('en')],
    [
      'file',
      `${bytes(size.bytes)}${externalFiles.length > 0 ? `, with ${externalFiles.join(', ')}` : ''}`,
    ],
    ...(size.gzipBytes === undefined ? [] : [['gzipped', bytes(size.gzipBytes)]]),
    ...(size.zeros === undefined
      ? []
      : [['zeros', percent(size.zeros / Math.max(1, size.parameters))]]),
    ...Object.entries(tensors).map(([dtype, t]) => [
      dtype,
      `${t.count} tensors, ${bytes(t.bytes)}`,
    ]),
    ...(functions > 0 ? [['functions', String(functions)]] : []),
  ];
}

function layerTable(layers: LinearLayerSummary[]): string {
  const eligible = layers.filter((l) => !l.skip).length;
  const table = textTable({
    header: ['linear layer', 'op', 'out x in', 'zeros', 'note'],
    rows: layers.map(({ name, op, shape, zeros, skip, isHead }) => [
      name,
      op,
      shape?.join(' x ') ?? '',
      zeros === undefined ? '' : percent(zeros),
      skip ?? (isHead ? 'output head' : ''),
    ]),
    numeric: [2, 3],
  });
  return `${table}\n\n${layers.length} linear layers, ${eligible} of them open to editing`;
}

const counts = (ops: Record<string, number>): string =>
  Object.entries(ops)
    .sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1))
    .map(([op, n]) => `${n} ${op}`)
    .join(', ');
