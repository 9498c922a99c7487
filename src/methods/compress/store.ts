import { batches } from '../../data/index.js';
import { modelInputs } from '../../graph/interface.js';
import { type WeightLayer, weightLayers } from '../../graph/weight-layers.js';
import { Workspace } from '../../graph/workspace.js';
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
  /** Those of the network as it was read, in file order. The model still has all, some by other names. */
  layers: readonly WeightLayer[];
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
  { bitsOf, layers, rewritten, calibration, threads }: StoreOptions,
): Promise<StoredLayer[]> {
  const format = formatOf(given);
  const { granularity } = given;
  const scales = new Map(rewritten.map(({ node, scales }) => [node, scales]));
  const now = weightLayers(new Workspace(model)).layers;
  const before = new Map(now.map(({ node }, i) => [node.output[0], layers[i]]));
  const choose: ChooseFormat = ({ node }) => {
    const layer = before.get(node.output[0]);
    const bits = layer && bitsOf(layer.name);
    const own = layer && scales.get(layer.node);
    if (bits === undefined || (format === 'float' && own)) return undefined;
    return { bits, granularity, scales: own ?? 'least-squares' };
  };
  // Formats fold BatchNormalizations and raise the opset: not where there is nothing to store.
  if (!now.some((layer) => choose(layer))) return [];
  const store = async () => {
    if (format === 'float') return storeRounded(model, choose);
    if (format === 'weight-only') return storeWeightOnly(model, choose);
    return storeQdq(model, choose, await activationRanges(model, rewritten, calibration, threads));
  };
  // Layers come first, in file order.
  return (await store()).map((stored, i) => ({ ...stored, name: layers[i]?.name ?? stored.name }));
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
