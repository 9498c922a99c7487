/**
 * Coordinate descent on the codes of a layer, and least-squares refits of its scales, on the quadratic
 * form of its output error. Neither ever raises it.
 *
 *   w, q   a row of weights, and of coded ones
 *   H      quadratic form of the error, [K, K]
 *   E      (w - q)·H, minus half the gradient with respect to q
 *   B      [levels, K] basis: q = Σ sᵦ·B[β]. For each group its codes, 0 elsewhere; with offsets, for
 *          each group also ones.
 *   P      B·H
 *
 * A code that changes by c changes E by -s·c·H[i, :] and P by c·H[i, :]. So after one product with H
 * sweeps cost only what changes, and a refit no more than the Gram matrix B·H·Bᵀ.
 */
import { choleskyInPlace, solveInPlace } from '../../linalg/cholesky.js';
import { addTimesTransposed } from '../../linalg/matrix.js';
import type { LayerCodes, LayerWeights, RowRange } from './codes.js';
import { allRows, checkRows, differenceRow, flushScale } from './codes.js';
import type { Hessian } from './hessian.js';
import { nearestCode, type Quantizer } from './quantizer.js';
import { requireAllRows } from './rows.js';

export interface RefineOptions {
  /** Times that scales are refitted and codes descended, before a last refit. */
  rounds?: number;
  /** Passes over the columns per round; fewer when one changes nothing. */
  sweeps?: number;
}

/** Of the mean diagonal of a Gram matrix. It shortens the step of a refit, not the scales. */
const RIDGE = 1e-6;
/** Bounds of the rows treated together, and how many doubles of P they may fill. */
const LEAST_BAND = 4;
const MOST_BAND = 32;
const BAND_DOUBLES = 2 ** 22;

/**
 * Refines rows [from, to) of `codes` in place: `rounds` times refit and descend, then a last refit.
 * Codes of a group whose scale becomes negative are flipped, unless the levels are not symmetric; a
 * group left with no codes gets scale 0. With one scale for the tensor all rows must be given.
 *
 * Throws a model error for a weight that is NaN or infinite.
 */
export function refineRows(
  layer: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  hessian: Hessian,
  { rounds = 3, sweeps = 3 }: RefineOptions = {},
  { from, to }: RowRange = allRows(layer),
): void {
  if (quantizer.pattern) throw new Error('descent changes codes one by one, without a pattern');
  checkRows(layer, { from, to });
  const task = openTask(layer, codes, quantizer, hessian);
  const { band } = task;
  if (codes.shared) {
    requireAllRows(codes, { from, to });
    refineShared(task, rounds, sweeps);
    return;
  }
  for (let top = from; top < to; top += band) {
    const state = openBand(task, top, Math.min(band, to - top));
    for (let row = 0; row < state.height; row++) {
      for (let round = 0; round < rounds; round++) {
        refitRow(task, state, row);
        descendRow(task, state, row, sweeps);
      }
      refitRow(task, state, row);
      storeLevels(task, state, row);
    }
  }
}

interface Task {
  layer: LayerWeights;
  codes: LayerCodes;
  quantizer: Quantizer;
  /** H [K, K] */
  h: Float64Array;
  /** Rows of B: groups, or twice as many with offsets. */
  levels: number;
  /** [groups, K] the rows of P that belong to offsets, the same for every row of weights. */
  ones: Float64Array;
  /** Rows per band. */
  band: number;
}

function openTask(
  layer: LayerWeights,
  codes: LayerCodes,
  quantizer: Quantizer,
  { full }: Hessian,
): Task {
  if (!full) throw new Error('descent needs the whole Hessian, not its diagonal');
  const { cols, group, groups, offsets } = codes;
  const ones = new Float64Array(offsets ? groups * cols : 0);
  if (offsets) {
    for (let k = 0; k < cols; k++) {
      const line = Math.floor(k / group) * cols;
      for (let j = 0; j < cols; j++) ones[line + j] += full[k * cols + j];
    }
  }
  const fitting = Math.floor(BAND_DOUBLES / ((groups + 1) * cols));
  return {
    layer,
    codes,
    quantizer,
    h: full,
    levels: offsets ? 2 * groups : groups,
    ones,
    band: Math.max(LEAST_BAND, Math.min(MOST_BAND, fitting - (fitting % 4))),
  };
}

/** Rows [top, top + height). */
interface Band {
  top: number;
  height: number;
  /** E [height, K] */
  e: Float64Array;
  /** [height, groups, K] the rows of P that belong to scales. */
  p: Float64Array;
  /** [height, levels] s in float64: groups' scales, then their offsets. */
  s: Float64Array;
}

function openBand({ layer, codes, h, levels }: Task, top: number, height: number): Band {
  const { cols, group, groups, scales, offsets } = codes;
  const lost = new Float64Array(height * cols);
  const coded = new Float64Array(height * cols);
  const s = new Float64Array(height * levels);
  for (let row = 0; row < height; row++) {
    differenceRow(layer, codes, top + row, lost, row * cols);
    coded.set(codes.codes.subarray((top + row) * cols, (top + row + 1) * cols), row * cols);
    const at = (top + row) * groups;
    s.set(scales.subarray(at, at + groups), row * levels);
    if (offsets) s.set(offsets.subarray(at, at + groups), row * levels + groups);
  }
  const e = new Float64Array(height * cols);
  const p = new Float64Array(height * groups * cols);
  const whole = { data: h, start: 0, stride: cols };
  addTimesTransposed(
    { data: e, start: 0, stride: cols },
    { data: lost, start: 0, stride: cols },
    whole,
    height,
    cols,
    cols,
  );
  for (let g = 0, left = 0; g < groups; g++, left += group) {
    addTimesTransposed(
      { data: p, start: g * cols, stride: groups * cols },
      { data: coded, start: left, stride: cols },
      { ...whole, start: left },
      height,
      cols,
      Math.min(group, cols - left),
    );
  }
  return { top, height, e, p, s };
}

/** Rounds the levels of a row to float32, which is what is stored. */
function storeLevels({ codes, levels }: Task, { top, s }: Band, row: number): void {
  const { cols, group, groups, scales, offsets } = codes;
  for (let g = 0; g < groups; g++) {
    const at = (top + row) * groups + g;
    const start = (top + row) * cols + g * group;
    const own = codes.codes.subarray(start, start + Math.min(group, cols - g * group));
    scales[at] = own.some((code) => code !== 0) ? s[row * levels + g] : 0;
    if (offsets) offsets[at] = s[row * levels + groups + g];
  }
}

/** One row of P. */
function image({ codes, ones }: Task, { p }: Band, row: number, level: number): Float64Array {
  const { cols, groups } = codes;
  const start = level < groups ? (row * groups + level) * cols : (level - groups) * cols;
  return (level < groups ? p : ones).subarray(start, start + cols);
}

/** ⟨values, B[level]⟩ */
function onBasis({ codes }: Task, row: number, values: Float64Array, level: number): number {
  const { cols, group, groups } = codes;
  const left = (level % groups) * group;
  const right = Math.min(left + group, cols);
  let sum = 0;
  if (level < groups) {
    const start = row * cols;
    for (let i = left; i < right; i++) sum += values[i] * codes.codes[start + i];
  } else {
    for (let i = left; i < right; i++) sum += values[i];
  }
  return sum;
}

/** Moves s by the solution of (B·H·Bᵀ + ridge)·step = B·Eᵀ. */
function refitRow(task: Task, band: Band, row: number): void {
  const equations = newEquations(task.levels);
  addEquations(task, band, row, equations);
  const step = solve(equations);
  for (let level = 0; level < step.length; level++) moveLevel(task, band, row, level, step[level]);
  for (let g = 0; g < task.codes.groups; g++) normalizeGroup(task, band, row, g);
}

/** The normal equations of a refit. */
interface Equations {
  /** [levels, levels] lower triangle of B·H·Bᵀ. */
  gram: Float64Array;
  /** [levels] B·Eᵀ */
  right: Float64Array;
}

const newEquations = (levels: number): Equations => ({
  gram: new Float64Array(levels * levels),
  right: new Float64Array(levels),
});

function addEquations(task: Task, band: Band, row: number, { gram, right }: Equations): void {
  const { levels } = task;
  const { cols } = task.codes;
  const e = band.e.subarray(row * cols, (row + 1) * cols);
  for (let b = 0; b < levels; b++) {
    const images = image(task, band, row, b);
    for (let c = 0; c <= b; c++) gram[b * levels + c] += onBasis(task, band.top + row, images, c);
    right[b] += onBasis(task, band.top + row, e, b);
  }
}

/** The step; none when there is nothing to refit. */
function solve({ gram, right }: Equations): Float64Array {
  const levels = right.length;
  let trace = 0;
  for (let b = 0; b < levels; b++) trace += gram[b * (levels + 1)];
  for (let b = 0; b < levels; b++) gram[b * (levels + 1)] += (RIDGE * trace) / levels;
  if (!choleskyInPlace(gram, levels)) return new Float64Array(0);
  solveInPlace(gram, levels, right, 1);
  return right;
}

function moveLevel(task: Task, band: Band, row: number, level: number, step: number): void {
  const { cols } = task.codes;
  const images = image(task, band, row, level);
  const e = band.e.subarray(row * cols, (row + 1) * cols);
  band.s[row * task.levels + level] += step;
  for (let j = 0; j < cols; j++) e[j] -= step * images[j];
}

/** What codes are multiplied with, when this is the solution for their scale. */
const codeFactor = ({ low, high }: Quantizer, scale: number): number =>
  flushScale(scale) === 0 ? 0 : scale < 0 && low === -high ? -1 : 1;

/** Flips the codes under a negative scale, drops those under one that is as good as 0. */
function normalizeGroup(task: Task, band: Band, row: number, g: number): void {
  const { codes, quantizer } = task;
  const at = row * task.levels + g;
  const scale = band.s[at];
  const factor = codeFactor(quantizer, scale);
  if (factor === 1) return;
  if (factor === 0) moveLevel(task, band, row, g, -scale);
  band.s[at] *= factor;
  const images = image(task, band, row, g);
  for (let j = 0; j < images.length; j++) images[j] *= factor;
  const start = (band.top + row) * codes.cols;
  const right = Math.min((g + 1) * codes.group, codes.cols);
  for (let i = g * codes.group; i < right; i++) codes.codes[start + i] *= factor;
}

/**
 * Gives each code in turn the level nearest to q + E/H[i, i], where the quadratic form is least with all
 * others as they are.
 */
function descendRow(task: Task, band: Band, row: number, sweeps: number): void {
  const { codes, h, levels } = task;
  const { low, high } = task.quantizer;
  const { cols, group, groups } = codes;
  const e = band.e.subarray(row * cols, (row + 1) * cols);
  const own = codes.codes.subarray((band.top + row) * cols, (band.top + row + 1) * cols);
  for (let sweep = 0; sweep < sweeps; sweep++) {
    let changes = 0;
    for (let g = 0, left = 0; g < groups; g++, left += group) {
      const scale = band.s[row * levels + g];
      if (scale === 0) continue;
      const images = image(task, band, row, g);
      const right = Math.min(left + group, cols);
      for (let i = left; i < right; i++) {
        // The offset is in q and in the levels: it cancels.
        const code = nearestCode(own[i] + e[i] / (scale * h[i * (cols + 1)]), low, high);
        const change = code - own[i];
        if (change === 0) continue;
        own[i] = code;
        changes++;
        const lost = scale * change;
        const line = i * cols;
        for (let j = 0; j < cols; j++) {
          e[j] -= lost * h[line + j];
          images[j] += change * h[line + j];
        }
      }
    }
    if (changes === 0) break;
  }
}

/**
 * The same for one scale (and offset) of all rows. Every refit and every descent opens all bands anew:
 * P of a whole layer is too much to keep.
 */
function refineShared(task: Task, rounds: number, sweeps: number): void {
  for (let round = 0; round < rounds; round++) {
    refitShared(task);
    for (const band of bands(task)) {
      for (let row = 0; row < band.height; row++) descendRow(task, band, row, sweeps);
    }
  }
  refitShared(task);
  if (task.codes.codes.every((code) => code === 0)) task.codes.scales.fill(0);
}

function refitShared(task: Task): void {
  const { codes, quantizer, levels } = task;
  const equations = newEquations(levels);
  for (const band of bands(task)) {
    for (let row = 0; row < band.height; row++) addEquations(task, band, row, equations);
  }
  const [step = 0, offsetStep = 0] = solve(equations);
  const scale = codes.scales[0] + step;
  const factor = codeFactor(quantizer, scale);
  if (factor !== 1) for (let k = 0; k < codes.codes.length; k++) codes.codes[k] *= factor;
  codes.scales.fill(factor * scale);
  codes.offsets?.fill(codes.offsets[0] + offsetStep);
}

function* bands(task: Task): Generator<Band> {
  const { rows } = task.codes;
  for (let top = 0; top < rows; top += task.band) {
    yield openBand(task, top, Math.min(task.band, rows - top));
  }
}
