/**
 * The filters that make the channels of a tensor, as methods want them that go by weights alone:
 * activations and pooling in between are passed over.
 */
import { opName } from '../../graph/nodes.js';
import { type Affine, outputAffine } from './maths/batch-norm.js';
import { dropMatrix, range } from './maths/mixing.js';
import { neuronMerging } from './maths/neuron-merging.js';
import { type Mixing, roundingScales, type UdfcOptions, udfcMixing } from './maths/udfc.js';
import type { Network } from './network.js';
import type { LayerVisit } from './statistics/propagate.js';

/** Filters of some consecutive channels. */
interface Behind {
  /** W [N, D] */
  filters: Float64Array;
  /** W̃ [N, D] where they were rounded and that is to be made up for. */
  rounded?: Float64Array;
  affine: Affine;
  groups: number;
}

/** Finds filters behind tensors; layers are added as a walk comes to them. */
export class FilterTrace {
  readonly #network: Network;
  readonly #layers = new Map<string, { behind: Behind; depthwise: boolean; input: string }>();

  constructor(network: Network) {
    this.#network = network;
  }

  add({ layer, depthwise, node, output }: LayerVisit, rounded?: Float64Array): void {
    const { filters, norm, bias } = layer;
    const affine = outputAffine(filters.outputs, norm, bias);
    const behind = { filters: filters.weights, rounded, affine, groups: filters.groups };
    this.#layers.set(output, { behind, depthwise, input: node.input[0] });
  }

  /** In the order of the tensor's channels; undefined where no filters stand behind some of them. */
  behind(name: string): Behind[] | undefined {
    const layer = this.#layers.get(name);
    if (layer) return layer.depthwise ? this.#through(layer) : [layer.behind];
    const node = this.#network.graph.root.values.get(name)?.producer;
    if (!node) return undefined;
    const inputs = node.input.map((input) => this.behind(input));
    switch (opName(node)) {
      case 'Concat':
        return inputs.every((parts) => parts) ? inputs.flatMap((parts) => parts ?? []) : undefined;
      case 'Add':
      case 'Sum':
      case 'Sub': {
        const [first, ...rest] = inputs.filter((parts) => parts !== undefined);
        const sign = opName(node) === 'Sub' ? -1 : 1;
        return rest.reduce<Behind[] | undefined>(
          (sum, parts) => sum && stackAll(sum, parts, sign),
          first,
        );
      }
      // These cut or permute channels.
      case 'Split':
      case 'Slice':
      case 'Gather':
        return undefined;
      default:
        // A gate, which has one value for all positions, is not what it is multiplied with.
        return node.input
          .map((input, i) => ({ parts: inputs[i], size: this.#sizeOf(input) }))
          .filter(({ parts }) => parts)
          .sort((a, b) => b.size - a.size)[0]?.parts;
    }
  }

  #sizeOf(name: string): number {
    return this.#network.shapes.get(name)?.dims?.reduce((a, b) => a * b, 1) ?? 0;
  }

  /** Each filter behind a depthwise convolution, times that one's own kernel. */
  #through({ behind, input }: { behind: Behind; input: string }): Behind[] | undefined {
    const parts = this.behind(input);
    const before = parts?.length === 1 ? parts[0] : undefined;
    const channels = behind.affine.scale.length;
    if (before?.affine.scale.length !== channels) return undefined;
    return [
      {
        filters: kronecker(behind.filters, before.filters, before.affine.scale),
        affine: behind.affine,
        groups: before.groups,
      },
    ];
  }
}

/** [N, A·B] of a [N, A] and b [N, B], the rows of b times `scale`. */
function kronecker(a: Float64Array, b: Float64Array, scale: Float64Array): Float64Array {
  const n = scale.length;
  const [width, depth] = [a.length / n, b.length / n];
  const out = new Float64Array(n * width * depth);
  let k = 0;
  for (let i = 0; i < n; i++)
    for (let p = 0; p < width; p++) {
      const factor = a[i * width + p] * scale[i];
      for (let q = 0; q < depth; q++) out[k++] = factor * b[i * depth + q];
    }
  return out;
}

function stackAll(a: readonly Behind[], b: readonly Behind[], sign: 1 | -1): Behind[] | undefined {
  if (a.length !== b.length) return undefined;
  const stacked = a.map((part, i) => stack(part, b[i], sign));
  return stacked.every((part) => part !== undefined) ? stacked : undefined;
}

/** Filters of a + sign·b: those of both terms behind each other, with their scales in them. */
function stack(a: Behind, b: Behind, sign: 1 | -1): Behind | undefined {
  const n = a.affine.scale.length;
  if (b.affine.scale.length !== n) return undefined;
  const [left, right] = [a.filters.length / n, b.filters.length / n];
  const filters = new Float64Array(a.filters.length + b.filters.length);
  for (let i = 0; i < n; i++) {
    const at = i * (left + right);
    for (let k = 0; k < left; k++) filters[at + k] = a.affine.scale[i] * a.filters[i * left + k];
    for (let k = 0; k < right; k++)
      filters[at + left + k] = sign * b.affine.scale[i] * b.filters[i * right + k];
  }
  const groups = a.groups === b.groups ? a.groups : 1;
  const shift = a.affine.shift.map((x, i) => x + sign * b.affine.shift[i]);
  return { filters, affine: { scale: new Float64Array(n).fill(1), shift }, groups };
}

/**
 * S of a tensor from the filters behind it; parts of a Concat by themselves.
 * @param kept of the tensor's channels
 * @returns undefined where a part has no filters behind it
 */
export function weightMixing(
  parts: readonly Behind[] | undefined,
  kept: Uint32Array,
  channels: number,
  method: 'udfc' | 'neuron-merging',
  options: UdfcOptions & { blocks: number },
): Mixing | undefined {
  const total = parts?.reduce((sum, { affine }) => sum + affine.scale.length, 0);
  if (!parts || total !== channels) return undefined;
  const s = dropMatrix(kept, channels);
  let [start, ridge, condition] = [0, 0, 1];
  for (const part of parts) {
    const size = part.affine.scale.length;
    const columns = range(kept.length).filter((m) => kept[m] >= start && kept[m] < start + size);
    const own = Uint32Array.from(columns, (m) => kept[m] - start);
    if (own.length > 0) {
      const solved = partMixing(part, own, method, parts.length > 1 ? 1 : options.blocks, options);
      for (let i = 0; i < size; i++)
        for (const [m, column] of columns.entries())
          s[(start + i) * kept.length + column] = solved.s[i * own.length + m];
      ridge = Math.max(ridge, solved.ridge);
      condition = Math.max(condition, solved.condition);
    }
    start += size;
  }
  return { s, ridge, condition };
}

/**
 * S of a tensor that has all its channels, whose filters were rounded: each channel times what brings its
 * rounded filter nearest the original.
 * @returns undefined where nothing was rounded
 */
export function scaleMixing(
  parts: readonly Behind[] | undefined,
  channels: number,
  options: Pick<UdfcOptions, 'alpha1' | 'alpha2'>,
): Mixing | undefined {
  const scales = parts?.flatMap(({ filters, rounded, affine }) =>
    rounded ? [...roundingScales(filters, rounded, affine, options)] : [],
  );
  if (scales?.length !== channels) return undefined;
  const s = dropMatrix(range(channels), channels);
  for (const [i, scale] of scales.entries()) s[i * (channels + 1)] = scale;
  return { s, ridge: 0, condition: 1 };
}

function partMixing(
  { filters, rounded, affine, groups }: Behind,
  kept: Uint32Array,
  method: 'udfc' | 'neuron-merging',
  blocks: number,
  options: UdfcOptions,
): Mixing {
  if (method === 'neuron-merging')
    return { s: neuronMerging(filters, affine, kept), ridge: 0, condition: 1 };
  return udfcMixing({ filters, rounded, affine, kept, groups, blocks }, options);
}
