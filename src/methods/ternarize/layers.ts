import type { LayerColumn, LayerReport } from '../method.js';
import type { Levels } from './parameters.js';

/** What was done to one layer. */
export interface TernarizeLayer extends LayerReport {
  levels?: Levels;
  /** How its codes were chosen; `as they are` for weights that were ternary already. */
  coding?: string;
  /** Fraction of codes that are 0. */
  zeros?: number;
  /** Σ(w - ŵ)² / Σw². */
  weightError?: number;
  /** Squared error of its output by the output's square, on calibration examples that took no part. */
  outputError?: number;
  /** Root mean square of what its bias gained. */
  biasNorm?: number;
  /** Of its weight, as stored, with scales. */
  bytes?: { before: number; after: number };
  bitsPerWeight?: number;
  /** What computes it. */
  kernel?: string;
  seconds?: number;
  notes?: string[];
}

const short = (value: number | undefined): string => {
  if (value === undefined) return '';
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential(1) : value.toPrecision(2);
};

export const columns: LayerColumn<TernarizeLayer>[] = [
  { header: 'levels', value: ({ levels }) => (levels === undefined ? '' : String(levels)) },
  { header: 'codes', value: ({ coding }) => coding ?? '' },
  {
    header: 'zeros',
    value: ({ zeros }) => (zeros === undefined ? '' : `${(100 * zeros).toFixed(0)} %`),
  },
  { header: 'error', value: ({ outputError }) => short(outputError) },
  {
    header: 'bits',
    value: ({ bitsPerWeight }) => (bitsPerWeight === undefined ? '' : bitsPerWeight.toFixed(2)),
  },
  { header: 'of weights', wide: true, value: ({ weightError }) => short(weightError) },
  { header: 'bias', wide: true, value: ({ biasNorm }) => short(biasNorm) },
  { header: 'kernel', wide: true, value: ({ kernel }) => kernel ?? '' },
  {
    header: 'kB',
    wide: true,
    value: ({ bytes }) =>
      bytes
        ? `${(bytes.before / 1e3).toPrecision(3)} -> ${(bytes.after / 1e3).toPrecision(3)}`
        : '',
  },
];
