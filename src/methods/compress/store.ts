import { batches } from '../../data/index.js';
import { modelInputs } from '../../graph/interface.js';
import type { Model } from '../../onnx/index.js';
import type { Calibration } from '../method.js';
import type { BitsOf } from './bits.js';
import type { ActivationRanges } from './formats/activation-ranges.js';
import { rangesFromBatchNorm } from './formats/batch-norm-ranges.js';
import { storeRounded } from './formats/fake.js';
import type { ChooseFormat, StoredLayer } from './formats/layers.js';
import { measureRanges } from './formats/measured-ranges.js';
import { storeQdq } from './formats/qdq.js';
import { storeWeightOnly } from './formats/weight-only.js';
import { type CompressParameters, formatOf } from './parameters.js';
import type { RewrittenLayer } from './rewrite.js';

export interface StoreOptions {
  bitsOf: BitsOf;
  /** Layers whose weights are rounded already, with their scales. */
  rewritten: readonly RewrittenLayer[];
  calibration?: Calibration;
  threads: number;
}

/** Examples at once, to see activations. */
const batch = 8;

/** Stores the weights of `model` in the format that was asked for, in place. */
export async function storeWeights(
  model: Model,
  given: CompressParameters,
  { bitsOf, rewritten, calibration, threads }: StoreOptions,
): Promise<StoredLayer[]> {
  const format = formatOf(given);
  const { granularity } = given;
  const scales = new Map(rewritten.map(({ node, scales }) => [node.output[0], scales]));
  const choose: ChooseFormat = ({ name, node }) => {
    const bits = bitsOf(name);
    const own = scales.get(node.output[0]);
    if (bits === undefined || (format === 'float' && own)) return undefined;
    return { bits, granularity, scales: own ?? 'least-squares' };
  };
  if (format === 'float') return storeRounded(model, choose);
  if (format === 'weight-only') return storeWeightOnly(model, choose);
  return storeQdq(model, choose, await activationRanges(model, rewritten, calibration, threads));
}

/** Measured where there is data, else what BatchNormalizations tell, and carried moments. */
async function activationRanges(
  model: Model,
  rewritten: readonly RewrittenLayer[],
  calibration: Calibration | undefined,
  threads: number,
): Promise<ActivationRanges> {
  if (!calibration) {
    const layers = new Map(rewritten.map(({ output, moments }) => [output, moments]));
    return rangesFromBatchNorm(model, { layers });
  }
  const { dataset, indices } = calibration;
  const specs = modelInputs(model.proto);
  const runs = async function* () {
    for await (const { feeds } of batches(dataset, indices, batch, specs)) yield feeds;
  };
  return measureRanges(model, runs, { rule: { kind: 'least-squares' }, threads });
}
