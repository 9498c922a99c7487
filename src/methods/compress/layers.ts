import type { LayerColumn, LayerReport } from '../method.js';

interface Change {
  before: number;
  after: number;
}

/** What was done to one layer. */
export interface CompressLayer extends LayerReport {
  /** Of its output. */
  channels?: Change;
  /** Why its output channels all stay. */
  kept?: string;
  /** Of its weight: what the codes span. */
  bits?: number;
  /** Of weight and bias, as they are stored. */
  bytes?: Change;
  /** Multiply-accumulates of one example. */
  macs?: Change;
  /** Condition of the system that makes up for what its input lost, and what was added to its diagonal. */
  condition?: number;
  ridge?: number;
  /** Expected squared error of its output, before the activation, by its expected square. */
  predictedError?: number;
  /** The same on calibration data. */
  measuredError?: number;
}

const changed = ({ before, after }: Change, show: (value: number) => string): string =>
  before === after ? show(before) : `${show(before)} -> ${show(after)}`;

const short = (value: number | undefined): string => {
  if (value === undefined) return '';
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential(1) : value.toPrecision(2);
};

const million = (value: number): string => (value / 1e6).toPrecision(3);

export const columns: LayerColumn<CompressLayer>[] = [
  { header: 'channels', value: ({ channels }) => (channels ? changed(channels, String) : '') },
  { header: 'bits', value: ({ bits }) => (bits === undefined ? '' : String(bits)) },
  {
    header: 'kB',
    value: ({ bytes }) => (bytes ? changed(bytes, (value) => (value / 1e3).toPrecision(3)) : ''),
  },
  {
    header: 'error',
    value: ({ predictedError, measuredError }) => short(measuredError ?? predictedError),
  },
  {
    header: 'predicted',
    wide: true,
    value: ({ predictedError, measuredError }) =>
      measuredError === undefined ? '' : short(predictedError),
  },
  { header: 'MMACs', wide: true, value: ({ macs }) => (macs ? changed(macs, million) : '') },
  { header: 'condition', wide: true, value: ({ condition }) => short(condition) },
  { header: 'ridge', wide: true, value: ({ ridge }) => short(ridge) },
  { header: 'channels stay', wide: true, value: ({ kept }) => kept ?? '' },
];
