// The state of a run on disk, after an epoch: a safetensors file with parameters, moments and autoencoders;
// in its metadata what the run was asked for, and the losses of its epochs.

import { z } from 'zod';
import type { AdamState, Floats } from '../../../autodiff/optimizer.js';
import type { Losses } from '../../../autodiff/training-loop.js';
import { dataError, usageError } from '../../../errors.js';
import { byName, type FloatTensor, openSafetensors, writeSafetensors } from '../safetensors.js';
import { initialWeights, type VaeSizes, type VaeWeights } from './vae.js';

const FORMAT = 'resect.laf/1';

/** What decides the course of a run; a state is of no use to a run that asks for something else. */
export type RunRequest = Readonly<Record<string, string | number>>;

/** All that the rest of a run depends on. */
export interface RunState {
  request: RunRequest;
  /** Means of the epochs that were made. */
  epochs: readonly Losses[];
  vaes: { all: VaeWeights; forgotten: VaeWeights };
  /** Mean losses of each epoch of the autoencoders. */
  vaeLosses: { all: readonly number[]; forgotten: readonly number[] };
  /** Of the parameters that are trained. */
  values: ReadonlyMap<string, Floats>;
  optimizers: { unlearning: AdamState; alignment: AdamState };
}

const told = z.object({
  request: z.record(z.string(), z.string().or(z.number())),
  epochs: z.array(z.record(z.string(), z.number())),
  vaeLosses: z.object({ all: z.array(z.number()), forgotten: z.array(z.number()) }),
  steps: z.object({ unlearning: z.int().min(0), alignment: z.int().min(0) }),
});

const groups = [
  'values',
  'vaes.all',
  'vaes.forgotten',
  'unlearning.first',
  'unlearning.second',
  'alignment.first',
  'alignment.second',
] as const;
type Group = (typeof groups)[number];

/**
 * Writes a state, whole or not at all, in the place of an earlier one.
 * @throws ioError when it cannot be written
 */
export async function writeState(path: string, state: RunState): Promise<void> {
  const { request, epochs, vaeLosses, optimizers } = state;
  const stored = new Map<string, Floats>(
    partsOf(state).flatMap(([group, part]) =>
      [...part].map(([name, own]) => [`${group}/${name}`, own] as const),
    ),
  );
  const tensors = [...stored].map(
    ([name, own]): FloatTensor => ({
      name,
      dtype: own instanceof Float64Array ? 'F64' : 'F32',
      shape: [own.length],
    }),
  );
  const steps = {
    unlearning: optimizers.unlearning.steps,
    alignment: optimizers.alignment.steps,
  };
  const metadata = {
    format: FORMAT,
    state: JSON.stringify({ request, epochs, vaeLosses, steps }),
  };
  const read = async (name: string) => stored.get(name) ?? new Float32Array();
  await writeSafetensors(path, { metadata, tensors: tensors.sort(byName), read }, true);
}

/**
 * Reads a state; whose it is, `checkState` tells.
 * @throws dataError when the file is no state; ioError when it cannot be read
 */
export async function readState(path: string): Promise<RunState> {
  const { metadata, tensors, read } = await openSafetensors(path);
  if (metadata.format !== FORMAT)
    throw dataError('The file is no checkpoint of unlearn laf.', {
      where: path,
      expected: `format ${FORMAT}`,
      got: metadata.format ?? 'none',
      hint: anew,
    });
  const state = parse(metadata.state, path);
  const parts = Object.fromEntries(
    groups.map((group) => [group, new Map<string, Floats>()]),
  ) as Record<Group, Map<string, Floats>>;
  for (const { name } of tensors) {
    const group = groups.find((g) => name.startsWith(`${g}/`));
    if (group) parts[group].set(name.slice(group.length + 1), (await read(name)).slice());
  }
  const moments = (loss: 'unlearning' | 'alignment'): AdamState => ({
    steps: state.steps[loss],
    first: parts[`${loss}.first`],
    second: parts[`${loss}.second`],
  });
  return {
    request: state.request,
    epochs: state.epochs,
    vaes: { all: parts['vaes.all'], forgotten: parts['vaes.forgotten'] },
    vaeLosses: state.vaeLosses,
    values: parts.values,
    optimizers: { unlearning: moments('unlearning'), alignment: moments('alignment') },
  };
}

/**
 * Refuses a state that a run cannot go on from.
 * @param request what the run is asked for
 * @param values the present ones, whose names and lengths those of the state must have
 * @param sizes of the autoencoders
 * @throws dataError when it is of another run, or does not fit; usageError when it has gone further
 */
export function checkState(
  path: string,
  state: RunState,
  request: RunRequest,
  {
    values,
    sizes,
    epochs,
  }: { values: ReadonlyMap<string, Floats>; sizes: VaeSizes; epochs: number },
): void {
  for (const [key, value] of Object.entries(request)) {
    if (state.request[key] === value) continue;
    throw dataError('The checkpoint is of another run.', {
      where: path,
      expected: `${key} ${value}`,
      got: `${state.request[key] ?? 'none'}`,
      hint: `Give the same model, data (--forget, --retain, --where, --indices) and options. ${anew}`,
    });
  }
  if (state.epochs.length > epochs)
    throw usageError('The checkpoint has more epochs than are asked for.', {
      where: path,
      expected: `at most ${epochs}`,
      got: `${state.epochs.length}`,
      hint: `Raise --epochs. ${anew}`,
    });
  const vae = initialWeights(sizes, () => 0);
  for (const [group, part] of partsOf(state))
    refuseMisfit(path, group, part, /^vae/.test(group) ? vae : values);
}

/** The tensors of a state, in groups. */
const partsOf = ({
  values,
  vaes,
  optimizers,
}: RunState): [Group, ReadonlyMap<string, Floats>][] => [
  ['values', values],
  ['vaes.all', vaes.all],
  ['vaes.forgotten', vaes.forgotten],
  ['unlearning.first', optimizers.unlearning.first],
  ['unlearning.second', optimizers.unlearning.second],
  ['alignment.first', optimizers.alignment.first],
  ['alignment.second', optimizers.alignment.second],
];

const anew = 'Leave out --resume to begin anew.';

function parse(text: string | undefined, path: string): z.infer<typeof told> {
  let content: unknown;
  try {
    content = JSON.parse(text ?? '');
  } catch {
    content = undefined;
  }
  const parsed = told.safeParse(content);
  if (parsed.success) return parsed.data;
  throw dataError('The checkpoint is damaged.', {
    where: `${path}: state`,
    got: parsed.error.issues[0].message,
    hint: anew,
  });
}

function refuseMisfit(
  path: string,
  group: Group,
  got: ReadonlyMap<string, Floats>,
  wanted: ReadonlyMap<string, Floats>,
): void {
  for (const [name, like] of wanted) {
    const own = got.get(name);
    if (own?.length === like.length && own.constructor === like.constructor) continue;
    throw dataError('The checkpoint does not fit the model.', {
      where: `${path}: tensor "${group}/${name}"`,
      expected: `${like.length} values`,
      got: own ? `${own.length}` : 'none',
      hint: anew,
    });
  }
}
