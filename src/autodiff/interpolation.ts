import type { AxisMap } from './axis-map.js';

/** How a Resize reads its input; the names are those of the op's attributes. */
export interface Interpolation {
  mode: 'nearest' | 'linear' | 'cubic';
  coordinates: string;
  nearest: string;
  cubicA: number;
  excludeOutside: boolean;
}

/**
 * The map that a Resize applies along one axis. Positions are computed in float32, as ONNX Runtime does,
 * so that ties fall alike.
 * @param size cells of the input
 * @param result cells of the output
 * @param scale as the op was given it: about result / size
 */
export function interpolationMap(
  size: number,
  result: number,
  scale: number,
  how: Interpolation,
): AxisMap {
  const values = new Float64Array(result * size);
  for (let row = 0; row < result; row++) {
    const at = source(row, size, result, Math.fround(scale), how.coordinates);
    for (const [cell, weight] of weights(at, size, how))
      values[row * size + Math.min(Math.max(cell, 0), size - 1)] += weight;
  }
  return { rows: result, columns: size, values };
}

const f = Math.fround;

/** Coordinate transformations whose position depends on one axis only. */
export const knownCoordinates = [
  'half_pixel',
  'half_pixel_symmetric',
  'pytorch_half_pixel',
  'align_corners',
  'asymmetric',
];

/** Position in the input of cell `x` of the output. */
function source(x: number, size: number, result: number, scale: number, mode: string): number {
  const halfPixel = f(f(f(x + 0.5) / scale) - 0.5);
  switch (mode) {
    case 'align_corners':
      return result === 1 ? 0 : f(f(x * (size - 1)) / (result - 1));
    case 'asymmetric':
      return f(x / scale);
    case 'pytorch_half_pixel':
      return result > 1 ? halfPixel : 0;
    case 'half_pixel_symmetric':
      return f((size / 2) * (1 - result / (scale * size)) + halfPixel);
    default:
      return halfPixel;
  }
}

/** Input cells and their weights; cells beyond an edge stand for the edge. */
function weights(at: number, size: number, how: Interpolation): [number, number][] {
  const below = Math.floor(at);
  const part = at - below;
  switch (how.mode) {
    case 'nearest':
      return [[nearestCell(at, how.nearest), 1]];
    case 'linear':
      return [
        [below, 1 - part],
        [below + 1, part],
      ];
    case 'cubic': {
      const taps = [-1, 0, 1, 2].map((k): [number, number] => {
        const outside = how.excludeOutside && (below + k < 0 || below + k >= size);
        return [below + k, outside ? 0 : cubic(Math.abs(k - part), how.cubicA)];
      });
      const total = how.excludeOutside ? taps.reduce((sum, [, w]) => sum + w, 0) : 1;
      return taps.map(([cell, w]) => [cell, w / total]);
    }
  }
}

function nearestCell(at: number, mode: string): number {
  switch (mode) {
    case 'floor':
      return Math.floor(at);
    case 'ceil':
      return Math.ceil(at);
    case 'round_prefer_ceil':
      return Math.floor(at + 0.5);
    default:
      return Math.ceil(at - 0.5);
  }
}

/** Keys' cubic convolution kernel (1981), of slope `a` at distance 1. */
const cubic = (d: number, a: number): number =>
  d <= 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : a * (((d - 5) * d + 8) * d - 4);
