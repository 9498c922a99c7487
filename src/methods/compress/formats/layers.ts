import type { WeightLayer } from '../../../graph/weight-layers.js';
import type { DType } from '../../../onnx/index.js';
import type { LayerReport } from '../../method.js';

/** How a weight is to be rounded: to symmetric codes in [-Q, Q], Q = 2^(bits-1) - 1. */
export interface WeightFormat {
  /** 2 to 8; to 16 where weights stay floats. */
  bits: number;
  /** One scale for each output channel, or for the whole tensor. Default: channel. */
  granularity?: 'channel' | 'tensor';
  /**
   * `max`: max|w|/Q, the default. `least-squares`: the fraction of it with the least squared error.
   * Or the scales themselves, of the weight as it is in the model that was handed in: one, or one for
   * each output channel. Codes of given scales are those that made the weights, where some were rounded
   * before. (The mid-rise levels of k bits are symmetric codes of k + 1 bits, scale max|w|/(2^k - 1).)
   */
  scales?: 'max' | 'least-squares' | Float64Array;
}

/** Says how each layer is to be stored; undefined leaves it as it is. */
export type ChooseFormat = (layer: WeightLayer) => WeightFormat | undefined;

/** What became of a layer's weight. */
export interface StoredLayer extends LayerReport {
  bits?: number;
  /** What the codes are stored as. */
  dtype?: DType;
  /** Codes, scales and zero points as they are stored. */
  bytes?: number;
  /** Whether a runtime can compute it in integers; where not, `reason` says why. */
  integer?: boolean;
}
