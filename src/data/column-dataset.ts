import { dataError } from '../errors.js';
import { auxiliaryKind, missingInput } from './auxiliary.js';
import type { Card, InputMapping } from './card.js';
import type { Column, ColumnFile } from './columns.js';
import { constantsOf } from './constants.js';
import { fromNumbers, isFloat, isInteger, showDims, toNumbers } from './dtypes.js';
import { type Labels, readLabels } from './labels.js';
import { layoutOf, type Preprocessing, prepare } from './preprocess.js';
import type { Dataset, Example, InputSpec, Task, TensorData } from './types.js';

interface Source {
  spec: InputSpec;
  column: Column;
  how: Preprocessing;
}

/**
 * Examples from the columns of a file. An input takes the column that the card names, or the one with its
 * own name; a single column that is left goes to a single input that is left, whatever their names.
 */
export async function columnDataset(
  file: ColumnFile,
  specs: readonly InputSpec[],
  card: Card,
  task?: Task,
): Promise<Dataset> {
  refuseTextKeys(card);
  const constants = constantsOf(specs, card);
  const labelName = labelColumn(file, specs, card);
  const sources = await Promise.all(
    [...mapInputs(file, specs, card, labelName)].map(async ([spec, name]): Promise<Source> => {
      const column = await file.column(name);
      return { spec, column, how: preprocessing(spec, column, card.inputs?.[spec.name]) };
    }),
  );
  const [{ column: first }] = sources;
  const { length } = first;
  for (const { column } of sources)
    if (column.length !== length)
      throw dataError('the arrays do not have equally many examples', {
        where: column.where,
        expected: `${length}, as in ${first.where}`,
        got: `${column.length}`,
      });
  const labels: Labels =
    labelName === undefined
      ? { task: task ?? 'none', of: async () => undefined }
      : await readLabels(await file.column(labelName), length, task);
  const ids = sources.find(({ spec }) => isInteger(spec.dtype))?.spec.name;
  return {
    path: card.file,
    length,
    files: file.files,
    task: labels.task,
    label: labels.label,
    constants,
    async example(i) {
      const inputs: Record<string, TensorData> = {};
      for (const { spec, column, how } of sources)
        inputs[spec.name] = prepare(
          await column.item(i),
          spec,
          how,
          `${column.where}, example ${i}`,
        );
      const item = ids === undefined ? undefined : inputs[ids];
      const tokens = item && item.dims.length === 1 ? item.dims[0] : undefined;
      const label = await labels.of(i);
      return {
        inputs,
        tokens,
        label: label ?? (labels.task === 'lm' ? idsLabel(item) : undefined),
      };
    },
  };
}

function refuseTextKeys({ file, sequence, inputs = {} }: Card): void {
  const tokens = Object.keys(inputs).find((name) => inputs[name].tokens !== undefined);
  const key = tokens === undefined ? 'sequence' : `inputs.${tokens}.tokens`;
  if (tokens !== undefined || sequence !== undefined)
    throw dataError(`\`${key}\` applies to text, and this data has none`, { where: file });
}

/** The ids themselves are what a language model is to predict. */
const idsLabel = (ids: TensorData | undefined): Example['label'] =>
  ids && { ...ids, dtype: 'int64', data: fromNumbers(toNumbers(ids), 'int64', 'labels') };

function labelColumn({ names }: ColumnFile, specs: readonly InputSpec[], { labels }: Card) {
  if (labels !== undefined && !names.includes(labels)) throw noColumn('labels', labels, names);
  const usual = ['label', 'labels'].find(
    (name) => names.includes(name) && !specs.some((spec) => spec.name === name),
  );
  return labels ?? usual;
}

const noColumn = (key: string, name: string, names: string[]) =>
  dataError(`the file has no array or field \`${name}\``, {
    where: `data card, ${key}`,
    expected: `one of ${names.join(', ')}`,
  });

function mapInputs(
  file: ColumnFile,
  specs: readonly InputSpec[],
  card: Card,
  labelName: string | undefined,
): Map<InputSpec, string> {
  const { names } = file;
  const mapping = new Map<InputSpec, string>();
  const unmapped: InputSpec[] = [];
  for (const spec of specs) {
    const { array, value } = card.inputs?.[spec.name] ?? {};
    if (value !== undefined) continue;
    if (array !== undefined && !names.includes(array))
      throw noColumn(`inputs.${spec.name}.array`, array, names);
    const name = array ?? (names.includes(spec.name) ? spec.name : undefined);
    if (name !== undefined) mapping.set(spec, name);
    else if (card.inputs?.[spec.name] || !auxiliaryKind(spec)) unmapped.push(spec);
  }
  const used = new Set([labelName, ...mapping.values()]);
  const free = names.filter((name) => !used.has(name));
  if (unmapped.length === 1 && free.length === 1) mapping.set(unmapped[0], free[0]);
  else if (unmapped.length > 0) throw missingInput(unmapped[0], names);
  if (mapping.size === 0)
    throw dataError('nothing in the data varies from example to example', { where: card.file });
  return mapping;
}

/** The card's preprocessing over what the kind of data implies. */
function preprocessing(spec: InputSpec, column: Column, mapping: InputMapping = {}): Preprocessing {
  const { layout, scale, mean, std, resize, channels } = mapping;
  const implied = isFloat(spec.dtype) ? column.implied : { ...column.implied, scale: undefined };
  const decoded = column.implied?.layout !== undefined;
  if (channels !== undefined && !decoded)
    throw dataError('`channels` applies to image files, not to arrays', {
      where: `data card, inputs.${spec.name}.channels`,
    });
  // The layout of decoded images is known; a card can only say which one the model reads.
  const modelLayout = decoded && layout ? layout : layoutOf(spec);
  return {
    layout: implied?.layout ?? layout,
    modelLayout,
    scale: scale ?? implied?.scale,
    mean,
    std,
    resize: resize ?? (decoded ? imageSize(spec, modelLayout) : undefined),
  };
}

function imageSize({ dims }: InputSpec, layout: string): [number, number] | undefined {
  const [height, width] = layout === 'NCHW' ? dims.slice(-2) : dims.slice(-3, -1);
  return typeof height === 'number' && typeof width === 'number' ? [height, width] : undefined;
}

/** Channels to decode images with: the card's, or those of the model's only image input, or 3. */
export function imageChannels(specs: readonly InputSpec[], card: Card): 1 | 3 {
  const spec = specs.find((candidate) => candidate.dims.length >= 3 && !auxiliaryKind(candidate));
  if (!spec)
    throw dataError('the model has no input for images', {
      where: card.file,
      got: specs.map((s) => `${s.name} ${showDims(s.dims)}`).join(', '),
    });
  const stated = Object.values(card.inputs ?? {}).find(({ channels }) => channels !== undefined);
  if (stated?.channels) return stated.channels;
  const layout = card.inputs?.[spec.name]?.layout ?? layoutOf(spec);
  const channels = spec.dims.length === 3 ? 1 : layout === 'NHWC' ? spec.dims[3] : spec.dims[1];
  if (typeof channels === 'string') return 3;
  if (channels === 1 || channels === 3) return channels;
  throw dataError('the model does not read grey or RGB images', {
    where: `input ${spec.name} ${showDims(spec.dims)}`,
    expected: '1 or 3 channels',
    got: `${channels}`,
  });
}
