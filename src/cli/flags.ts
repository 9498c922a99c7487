import { Errors, Flags } from '@oclif/core';
import type { FlagInput } from '@oclif/core/interfaces';
import { z } from 'zod';
import type { Gates } from '../evaluate/gates.js';
import type { Method } from '../methods/method.js';

/** A flag with a number. */
export const numberFlag = Flags.custom<number>({
  parse: async (text) => {
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value)) return value;
    throw new Errors.CLIError(`Expected a number but received: ${text}`);
  },
});

/** Flags of every command that runs models. */
export const runtimeFlags = {
  threads: Flags.integer({
    description: 'threads of ONNX Runtime and of row workers (default: all)',
    min: 1,
    max: 256,
    helpGroup: 'RUN',
  }),
  seed: Flags.integer({
    description: 'seed of every random choice',
    default: 0,
    min: 0,
    helpGroup: 'RUN',
  }),
  quiet: Flags.boolean({ description: 'print nothing but errors', helpGroup: 'RUN' }),
};

/** Flags that say how data is read. */
export const dataFlags = {
  task: Flags.option({
    description: 'what the model does (default: guessed from the data)',
    options: ['classification', 'lm', 'regression', 'none'] as const,
    helpGroup: 'DATA',
  })(),
  tokenizer: Flags.string({
    description: 'tokenizer.json for text',
    helpValue: 'FILE',
    helpGroup: 'DATA',
  }),
  where: Flags.string({
    description: 'only examples with this label, e.g. label=7',
    helpGroup: 'DATA',
  }),
  indices: Flags.string({
    description: 'only the examples listed in FILE',
    helpValue: 'FILE',
    helpGroup: 'DATA',
  }),
};

export const gateFlags = {
  'max-drop': Flags.string({
    description:
      'fail if a metric gets worse by more than this, e.g. accuracy=0.01 or perplexity=5%',
    helpValue: 'METRIC=AMOUNT',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'GATES',
  }),
  min: Flags.string({
    description: 'fail if a metric is not at least this good, e.g. accuracy=0.9',
    helpValue: 'METRIC=VALUE',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'GATES',
  }),
  'max-size': Flags.string({
    description: 'fail if the file is larger, e.g. 20MB or 0.5x',
    helpGroup: 'GATES',
  }),
  'min-speedup': numberFlag({
    description: 'fail if not this many times faster',
    helpGroup: 'GATES',
  }),
};

/** The values of `gateFlags` as gates. */
export const gatesFrom = (flags: {
  'max-drop'?: string[];
  'min-forget'?: string[];
  min?: string[];
  'max-size'?: string;
  'min-speedup'?: number;
}): Gates => ({
  maxDrop: flags['max-drop'] ?? [],
  minForget: flags['min-forget'] ?? [],
  min: flags.min ?? [],
  maxSize: flags['max-size'],
  minSpeedup: flags['min-speedup'],
});

export const reportFlag = {
  report: Flags.string({
    description: 'also write a report (repeatable)',
    helpValue: 'FILE.json|FILE.md',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'OUTPUT',
  }),
};

/** Flags of every command that writes a model, but those of its data. */
const writingFlags = {
  output: Flags.string({
    char: 'o',
    description: 'where to write the result',
    helpValue: 'FILE',
    helpGroup: 'OUTPUT',
  }),
  force: Flags.boolean({ description: 'replace an existing output', helpGroup: 'OUTPUT' }),
  'external-data': Flags.boolean({
    description: 'keep weights in a file of their own (always so above 2 GiB)',
    allowNo: true,
    helpGroup: 'OUTPUT',
  }),
  provenance: Flags.boolean({
    description: 'record in the model how it was made',
    default: true,
    allowNo: true,
    helpGroup: 'OUTPUT',
  }),
  'dry-run': Flags.boolean({
    description: 'say what would change and what is skipped; write nothing',
    helpGroup: 'OUTPUT',
  }),
  'keep-failed': Flags.boolean({
    description: 'keep the output when a gate fails',
    helpGroup: 'OUTPUT',
  }),
  eval: Flags.string({
    description: 'examples to measure before and after on',
    helpValue: 'DATA',
    helpGroup: 'DATA',
  }),
  include: Flags.string({
    description: 'only layers whose name matches (repeatable)',
    helpValue: 'GLOB',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'LAYERS',
  }),
  exclude: Flags.string({
    description: 'all but layers whose name matches (repeatable)',
    helpValue: 'GLOB',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'LAYERS',
  }),
  ...dataFlags,
  ...gateFlags,
  ...reportFlag,
  ...runtimeFlags,
};

/** Flags of every command that calibrates on examples. */
export const operationFlags = {
  ...writingFlags,
  calib: Flags.string({
    description: 'examples to calibrate on; labels are not used',
    helpValue: 'DATA',
    helpGroup: 'DATA',
  }),
  samples: Flags.integer({
    description: 'calibration examples at most',
    default: 128,
    min: 1,
    helpGroup: 'DATA',
  }),
};

/** Flags of every command that merges models. */
export const mergeFlags = {
  ...writingFlags,
  eval: Flags.string({
    description:
      'examples to measure the merge and its models on, under a name if you like (repeatable)',
    helpValue: '[NAME=]DATA',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'DATA',
  }),
  mce: Flags.boolean({
    description:
      'also the mean corruption error over all --eval sets but clean: name them noise@1, noise@3, ...',
    helpGroup: 'DATA',
  }),
  batch: Flags.integer({
    description: 'examples that are run together when the merge is measured',
    default: 32,
    min: 1,
    helpGroup: 'DATA',
  }),
  sweep: Flags.integer({
    description: 'also measure so many static weights between two models; 0: none',
    default: 11,
    min: 0,
    max: 101,
    helpGroup: 'DATA',
  }),
  calib: Flags.string({
    description: 'unlabelled examples of the domain, to calibrate on',
    helpValue: 'DATA',
    helpGroup: 'DATA',
  }),
  samples: Flags.integer({
    description: 'calibration examples at most',
    default: 500,
    min: 1,
    helpGroup: 'DATA',
  }),
  include: Flags.string({
    description: 'merge only tensors whose name matches (repeatable)',
    helpValue: 'GLOB',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'LAYERS',
  }),
  exclude: Flags.string({
    description: 'leave tensors whose name matches as they are in the first model (repeatable)',
    helpValue: 'GLOB',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'LAYERS',
  }),
};

/** Of merges that go by what models have become. */
export const baseFlag = {
  base: Flags.string({
    description: 'the model that all were made from',
    helpValue: 'FILE',
    required: true,
  }),
};

/** Flags of commands that make one model of a generalist and an expert. */
export const pairFlags = {
  generalist: Flags.string({
    description: 'the model that serves under drift',
    helpValue: 'FILE',
    required: true,
  }),
  expert: Flags.string({
    description: 'the model that was tuned from it, which the result has its names from',
    helpValue: 'FILE',
    required: true,
  }),
  ...mergeFlags,
};

/** Flags of every command that makes a model forget. */
export const unlearnFlags = {
  ...writingFlags,
  forget: Flags.string({
    description: 'examples to forget, labelled; all of them, or those of --where and --indices',
    helpValue: 'DATA',
    helpGroup: 'DATA',
  }),
  retain: Flags.string({
    description:
      'training examples to keep; of the same DATA as --forget, those that are not to be forgotten',
    helpValue: 'DATA',
    helpGroup: 'DATA',
  }),
  reference: Flags.string({
    description: 'a model retrained without the forget set, to compare with',
    helpValue: 'FILE',
    helpGroup: 'DATA',
  }),
  relearn: Flags.boolean({
    description: 'also train the result until it knows the forget set again, and count the steps',
    helpGroup: 'RUN',
  }),
  'min-forget': Flags.string({
    description:
      'fail if a metric does not get this much worse on the forget set, e.g. accuracy=0.9',
    helpValue: 'METRIC=AMOUNT',
    multiple: true,
    multipleNonGreedy: true,
    helpGroup: 'GATES',
  }),
  where: Flags.string({
    description: 'forget only examples with this label, e.g. label=7',
    helpGroup: 'DATA',
  }),
  indices: Flags.string({
    description: 'forget only the examples listed in FILE',
    helpValue: 'FILE',
    helpGroup: 'DATA',
  }),
};

/** `varPower` -> `var-power`. */
const kebab = (name: string): string =>
  name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

interface PropertySchema {
  type?: string;
  enum?: string[];
  default?: unknown;
  description?: string;
}

/** One flag per parameter of a method, made from its schema. */
export function methodFlags<S extends z.ZodObject>({
  parameters,
}: Pick<Method<S>, 'parameters'>): FlagInput {
  const { properties = {} } = z.toJSONSchema(parameters, { io: 'input' });
  return Object.fromEntries(
    Object.entries(properties).map(([key, property]) => [
      kebab(key),
      toFlag(property as PropertySchema),
    ]),
  );
}

function toFlag({
  type,
  enum: options,
  default: fallback,
  description,
}: PropertySchema): FlagInput[string] {
  const shared = { description, helpGroup: 'METHOD' };
  // The schema applies defaults; help only shows them.
  const shown = fallback === undefined ? description : `${description} (default: ${fallback})`;
  if (type === 'boolean') return Flags.boolean({ ...shared, allowNo: fallback === true });
  if (type === 'array') return Flags.string({ ...shared, multiple: true, multipleNonGreedy: true });
  if (type === 'number' || type === 'integer') return numberFlag({ ...shared, description: shown });
  return Flags.string({ ...shared, description: shown, ...(options && { options }) });
}

/** The parameters that were given as flags; the schema fills in the rest. */
export function methodParameters<S extends z.ZodObject>(
  { parameters }: Pick<Method<S>, 'parameters'>,
  flags: Record<string, unknown>,
): z.input<S> {
  const given = Object.keys(parameters.shape).flatMap((key) =>
    flags[kebab(key)] === undefined ? [] : [[key, flags[kebab(key)]]],
  );
  return Object.fromEntries(given) as z.input<S>;
}
