import { usageError } from '../errors.js';
import { higherIsBetter, type Metrics } from './metrics.js';

/** Conditions that the written model must meet. */
export interface Gates {
  /** METRIC=AMOUNT or METRIC=PERCENT%: how much worse than the original a metric may be. */
  maxDrop: string[];
  /** METRIC=AMOUNT or METRIC=PERCENT%: how much worse a metric must be on the forget set. */
  minForget?: string[];
  /** METRIC=VALUE: a metric must be at least as good. */
  min: string[];
  /** Bytes (with optional KB, MB, GB) or a share of the original's size (`0.5x`). */
  maxSize?: string;
  /** Median latency of the original over that of the result. */
  minSpeedup?: number;
}

export interface GateInput {
  before: Metrics;
  after: Metrics;
  /** On the forget set. */
  forget?: { before: Metrics; after: Metrics };
  bytes: { before: number; after: number };
  speedup?: number;
}

export interface GateResult {
  gate: string;
  passed: boolean;
  detail: string;
}

/**
 * Checks every gate.
 * @throws {ResectError} exit 2 for a gate that names a metric which was not measured.
 */
export function checkGates(gates: Gates, input: GateInput): GateResult[] {
  const results: GateResult[] = [];
  for (const gate of gates.maxDrop) {
    const { metric, value, relative } = parseGate('--max-drop', gate, input.after);
    const before = input.before[metric] ?? ideal(metric);
    const worse = (higherIsBetter[metric] ? 1 : -1) * (before - input.after[metric]);
    const allowed = relative ? (value / 100) * Math.abs(before) : value;
    results.push({
      gate: `--max-drop ${gate}`,
      passed: worse <= allowed, // NaN fails
      detail: `${metric} ${show(before)} -> ${show(input.after[metric])}, worse by ${show(worse)}, allowed ${show(allowed)}`,
    });
  }
  for (const gate of gates.minForget ?? []) {
    const { before = {}, after = {} } = input.forget ?? {};
    const { metric, value, relative } = parseGate('--min-forget', gate, after);
    const worse = (higherIsBetter[metric] ? 1 : -1) * (before[metric] - after[metric]);
    const wanted = relative ? (value / 100) * Math.abs(before[metric]) : value;
    results.push({
      gate: `--min-forget ${gate}`,
      passed: worse >= wanted,
      detail: `${metric} on the forget set ${show(before[metric])} -> ${show(after[metric])}, worse by ${show(worse)}, wanted ${show(wanted)}`,
    });
  }
  for (const gate of gates.min) {
    const { metric, value } = parseGate('--min', gate, input.after);
    const after = input.after[metric];
    const passed = higherIsBetter[metric] ? after >= value : after <= value;
    results.push({
      gate: `--min ${gate}`,
      passed,
      detail: `${metric} is ${show(after)}, wanted ${higherIsBetter[metric] ? 'at least' : 'at most'} ${show(value)}`,
    });
  }
  if (gates.maxSize !== undefined) {
    const limit = parseSize(gates.maxSize, input.bytes.before);
    results.push({
      gate: `--max-size ${gates.maxSize}`,
      passed: input.bytes.after <= limit,
      detail: `${input.bytes.after} bytes, allowed ${limit}`,
    });
  }
  if (gates.minSpeedup !== undefined) {
    if (input.speedup === undefined)
      throw usageError('--min-speedup needs a model that ONNX Runtime can run.');
    results.push({
      gate: `--min-speedup ${gates.minSpeedup}`,
      passed: input.speedup >= gates.minSpeedup,
      detail: `${show(input.speedup)}x, wanted ${show(gates.minSpeedup)}x`,
    });
  }
  return results;
}

/** Refuses gates that cannot be read, before any work is done. */
export function validateGates(gates: Gates): void {
  for (const gate of gates.maxDrop) split('--max-drop', gate);
  for (const gate of gates.minForget ?? []) split('--min-forget', gate);
  for (const gate of gates.min) split('--min', gate);
  if (gates.maxSize !== undefined) parseSize(gates.maxSize, 1);
  if (gates.minSpeedup !== undefined && !(gates.minSpeedup > 0)) {
    throw usageError('--min-speedup is not a number above 0.', { got: String(gates.minSpeedup) });
  }
}

/**
 * Refuses gates on metrics that will not be measured, before any work is done.
 * @param kept, forget names of the metrics that will be, on what is to be kept and on the forget set
 * @throws {ResectError} exit 2
 */
export function checkMeasurable(
  gates: Gates,
  kept: readonly string[],
  forget: readonly string[],
): void {
  const measured = (names: readonly string[]) =>
    Object.fromEntries(names.map((name) => [name, Number.NaN]));
  for (const gate of gates.maxDrop) parseGate('--max-drop', gate, measured(kept));
  for (const gate of gates.minForget ?? []) parseGate('--min-forget', gate, measured(forget));
  for (const gate of gates.min) parseGate('--min', gate, measured(kept));
}

/** Amounts of `--max-drop` that are absolute, by metric. */
export function absoluteDrops(gates: Gates): Record<string, number> {
  const drops = gates.maxDrop.map((gate) => split('--max-drop', gate));
  return Object.fromEntries(drops.flatMap((d) => (d.relative ? [] : [[d.metric, d.value]])));
}

/** Bytes that `--max-size` allows, of an original of `before` bytes; undefined when it is not given. */
export const sizeLimit = ({ maxSize }: Gates, before: number): number | undefined =>
  maxSize === undefined ? undefined : parseSize(maxSize, before);

function split(flag: string, gate: string): { metric: string; value: number; relative: boolean } {
  const match = /^([A-Za-z0-9]+)=([0-9.eE+-]+)(%?)$/.exec(gate);
  const value = Number(match?.[2]);
  if (!match || !Number.isFinite(value)) {
    throw usageError(`${flag} cannot be read.`, {
      expected: 'METRIC=NUMBER, e.g. accuracy=0.01',
      got: gate,
    });
  }
  if (!Object.hasOwn(higherIsBetter, match[1])) {
    throw usageError(`${flag} names an unknown metric.`, {
      expected: Object.keys(higherIsBetter).join(', '),
      got: match[1],
    });
  }
  return { metric: match[1], value, relative: match[3] === '%' };
}

function parseGate(flag: string, gate: string, measured: Metrics) {
  const parsed = split(flag, gate);
  if (!Object.hasOwn(measured, parsed.metric)) {
    throw usageError(`${flag} names a metric that was not measured.`, {
      expected: Object.keys(measured).join(', ') || 'none was measured',
      got: parsed.metric,
      hint: 'Give labelled data with --eval, or choose another metric.',
    });
  }
  return parsed;
}

/** Fidelity compares with the original itself, whose value is perfect. */
const ideal = (metric: string): number => (higherIsBetter[metric] ? 1 : 0);

const units: Record<string, number> = { '': 1, B: 1, KB: 1e3, MB: 1e6, GB: 1e9 };

function parseSize(text: string, original: number): number {
  const match = /^([0-9.]+)\s*(x|B|KB|MB|GB)?$/i.exec(text.trim());
  const value = Number(match?.[1]);
  if (!match || !Number.isFinite(value)) {
    throw usageError('--max-size cannot be read.', {
      expected: 'bytes, or a number with KB, MB or GB, or a share of the original such as 0.5x',
      got: text,
    });
  }
  const unit = (match[2] ?? '').toUpperCase();
  return unit === 'X' ? value * original : value * units[unit];
}

const show = (value: number): string =>
  Number.isFinite(value) ? String(Number(value.toPrecision(4))) : String(value);
