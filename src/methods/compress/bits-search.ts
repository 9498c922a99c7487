/** As few bits for each layer as an allowed loss leaves room for. */
import type { Model } from '../../onnx/index.js';
import { keepsWithin, mostSteps, searchData } from '../drop-search.js';
import { layerRule } from '../layer-globs.js';
import type { Context } from '../method.js';
import { type BitsOf, edgesOf } from './bits.js';
import type { Moments } from './maths/moments.js';
import type { Network } from './network.js';
import { type CompressParameters, formatOf } from './parameters.js';
import type { Statistics } from './pruning.js';
import { roundFilters } from './rounding.js';
import { type LayerVisit, propagate } from './statistics/propagate.js';

/** Bits that take different numbers of bytes in each format, the first leaving weights as they are. */
const choices = {
  qdq: [32, 8],
  'weight-only': [32, 8, 4],
  float: [32, 16, 8, 7, 6, 5, 4, 3, 2],
};

/** One layer on fewer bits than before. */
interface Step {
  layer: string;
  bits: number;
  /** What it adds to the expected relative error of outputs, and saves in bytes. */
  error: number;
  bytes: number;
}

/**
 * Puts layers on fewer bits one after the other, always the one whose expected error rises least for the
 * bytes it saves, and returns the last state that keeps within `maxDrop`, found by bisection.
 * @param make the compressed model on given bits
 */
export async function searchBits(
  network: Network,
  given: CompressParameters,
  statistics: Statistics,
  context: Context,
  make: (bitsOf: BitsOf) => Promise<Model>,
): Promise<{ bitsOf: BitsOf; note: string }> {
  const steps = await stepsOf(network, given, statistics, context.selects);
  const { layerBits } = given;
  const fixed = layerRule(layerBits);
  const after = (count: number): BitsOf => {
    const chosen = new Map(steps.slice(0, count).map(({ layer, bits }) => [layer, bits]));
    return (layer) => {
      const bits = fixed(layer) ?? chosen.get(layer) ?? 32;
      return bits === 32 || !context.selects(layer) ? undefined : bits;
    };
  };
  let tried = 0;
  const holds = async (count: number) => {
    context.progress('bits', tried++, Math.ceil(Math.log2(steps.length + 1)) + 1);
    return keepsWithin(network.model, await make(after(count)), context);
  };
  const low = await mostSteps(steps.length, holds);
  const saved = steps.slice(0, low).reduce((sum, { bytes }) => sum + bytes, 0);
  const note =
    `Bits were chosen in ${tried} ${tried === 1 ? 'trial' : 'trials'} on ${searchData(context)}. ${low} of ${steps.length} steps to fewer ` +
    `bits keep within --max-drop, and save ${(saved / 1e3).toFixed(0)} kB.`;
  return { bitsOf: after(low), note };
}

/** All steps, in the order in which they are to be taken. */
async function stepsOf(
  network: Network,
  given: CompressParameters,
  statistics: Statistics,
  selects: (layer: string) => boolean,
): Promise<Step[]> {
  const { layerBits, edgeBits, granularity } = given;
  const fixed = layerRule(layerBits);
  const names = network.found.layers.map(({ name }) => name);
  const edges = edgesOf(names);
  const known = new Set(names);
  const steps: Step[] = [];
  await propagate(network.model, network.graph, {
    ...statistics,
    shapes: network.shapes,
    onLayer: (visit) => {
      const layer = network.nameOf(visit.node);
      if (!known.has(layer) || !selects(layer) || fixed(layer) !== undefined) return undefined;
      const levels = choices[formatOf(given)].filter((b) => !edges.has(layer) || b >= edgeBits);
      const elements = visit.layer.filters.weights.length;
      let before = { bits: 32, error: 0 };
      for (const bits of levels.slice(1)) {
        const error = roundingError(visit, { bits, granularity });
        const bytes = ((before.bits - bits) * elements) / 8;
        steps.push({ layer, bits, error: error - before.error, bytes });
        before = { bits, error };
      }
      return undefined;
    },
  });
  return ordered(steps);
}

/** By error per byte, though never a layer's later step before its earlier ones. */
function ordered(steps: readonly Step[]): Step[] {
  const waiting = new Map<string, Step[]>();
  for (const step of steps) waiting.set(step.layer, [...(waiting.get(step.layer) ?? []), step]);
  const order: Step[] = [];
  while (order.length < steps.length) {
    const next = [...waiting.values()].reduce((best, queue) =>
      best.length === 0 || (queue.length > 0 && rate(queue[0]) < rate(best[0])) ? queue : best,
    );
    order.push(...next.splice(0, 1));
  }
  return order;
}

const rate = ({ error, bytes }: Step): number => error / bytes;

/** Expected squared error of a layer's output by its expected square, when its weights are rounded. */
function roundingError(
  { layer: { filters }, input: { original }, step }: LayerVisit,
  rounding: { bits: number; granularity: 'channel' | 'tensor' },
): number {
  const { weights, outputs, inputs, groups } = filters;
  const rounded = roundFilters(filters, rounding).filters.weights;
  const depth = inputs / groups;
  const taps = weights.length / (outputs * depth);
  const power = secondMoments(original);
  const out = secondMoments(step.preActivation);
  let [error, total, k] = [0, 0, 0];
  for (let p = 0; p < outputs; p++) {
    const first = Math.floor((p * groups) / outputs) * depth;
    let sum = 0;
    for (let i = 0; i < depth; i++)
      for (let t = 0; t < taps; t++, k++) sum += (weights[k] - rounded[k]) ** 2 * power[first + i];
    error += step.scale[p] ** 2 * sum;
    total += out[p];
  }
  return total > 0 ? error / total : 0;
}

const secondMoments = ({ mean, covariance }: Moments): Float64Array =>
  mean.map((m, i) => m * m + covariance[i * (mean.length + 1)]);
