import { dataError, usageError } from '../errors.js';
import { fileSource, readText, statPath } from './bytes.js';
import { type Card, isCard, readCard } from './card.js';
import { columnDataset, imageChannels } from './column-dataset.js';
import type { ColumnFile } from './columns.js';
import { openIdx } from './idx.js';
import { openImages } from './images.js';
import { openJsonl } from './jsonl.js';
import { openNpy } from './npy.js';
import { openNpz } from './npz.js';
import { openParquet } from './parquet.js';
import { slice } from './slices.js';
import { loadTokenizer } from './text.js';
import { type Texts, textDataset } from './text-dataset.js';
import type { Dataset, InputSpec, Task } from './types.js';

export { batches } from './batch.js';
export { concat } from './concat.js';
export { hashFiles } from './hash.js';
export { randomFeeds } from './random-feeds.js';
export { normal, sampleIndices, shuffled, uniform, uniformFor } from './sampling.js';
export type { Batch, Dataset, Example, InputSpec, Task, TensorData } from './types.js';

export interface DataOptions {
  /** A `tokenizer.json`, for text. */
  tokenizer?: string;
  /** `label=7`. */
  where?: string;
  /** A file of example numbers, as text or `.npy`. */
  indices?: string;
  /** Take what `where` and `indices` leave. */
  complement?: boolean;
  task?: Task;
}

/**
 * Opens data for a model with the given inputs: a `.npz`, `.npy`, `.jsonl`, `.txt` or `.parquet` file, IDX
 * files (`images.gz,labels.gz`), a folder of images, or a `.yaml` data card. The first example is read, so
 * that data which does not fit the model is refused here.
 * Throws an I/O error for files that cannot be read and a data error for what is in them.
 */
export async function openDataset(
  path: string,
  specs: readonly InputSpec[],
  options: DataOptions = {},
): Promise<Dataset> {
  const card: Card = isCard(path) ? await readCard(path) : { file: path };
  const tokenizer = options.tokenizer ?? card.tokenizer;
  const task = options.task ?? card.task;
  const whole = await openFile(card, specs, tokenizer, task);
  if (whole.length === 0) throw dataError('the data has no examples', { where: path });
  const files = isCard(path) ? [...whole.files, path] : whole.files;
  const dataset = await slice({ ...whole, path, files }, options);
  await dataset.example(0);
  return dataset;
}

async function openFile(
  card: Card,
  specs: readonly InputSpec[],
  tokenizer: string | undefined,
  task: Task | undefined,
): Promise<Dataset> {
  if (/\.txt$/i.test(card.file)) {
    const texts = { texts: [await readText(card.file)], files: [card.file] };
    return openTexts(texts, specs, card, tokenizer, task);
  }
  const file = await openColumns(card, specs);
  if (!file.texts || !readsText(file, specs, card)) return columnDataset(file, specs, card, task);
  const labelName = card.labels ?? ['label', 'labels'].find((name) => file.names.includes(name));
  const texts = {
    texts: await file.texts('text'),
    labels: labelName === undefined ? undefined : await file.column(labelName),
    files: file.files,
  };
  return openTexts(texts, specs, card, tokenizer, task);
}

/** Records are read as text when the card says so, or when they have a text and no field for any input. */
function readsText({ names }: ColumnFile, specs: readonly InputSpec[], { inputs = {} }: Card) {
  const mappings = Object.values(inputs);
  if (mappings.some(({ tokens }) => tokens !== undefined)) return true;
  if (mappings.some(({ array }) => array !== undefined)) return false;
  return (
    names.includes('text') && !specs.some(({ name }) => name !== 'text' && names.includes(name))
  );
}

async function openTexts(
  texts: Texts,
  specs: readonly InputSpec[],
  card: Card,
  tokenizer: string | undefined,
  task: Task | undefined,
): Promise<Dataset> {
  if (tokenizer === undefined)
    throw usageError('text needs a tokenizer', {
      where: card.file,
      hint: 'Give `--tokenizer tokenizer.json`, or `tokenizer:` in a data card.',
    });
  const files = [...texts.files, tokenizer];
  return textDataset({ ...texts, files }, await loadTokenizer(tokenizer), specs, card, task);
}

async function openColumns(card: Card, specs: readonly InputSpec[]): Promise<ColumnFile> {
  const { file } = card;
  if (/\.npz$/i.test(file)) return openNpz(file);
  if (/\.npy$/i.test(file)) return openNpy(file);
  if (/\.jsonl$/i.test(file)) return openJsonl(file);
  if (/\.parquet$/i.test(file)) return openParquet(file);
  const pair = file.split(',');
  if (pair.length === 2) return openIdx(pair[0], pair[1]);
  if ((await statPath(file)).isDirectory()) return openImages(file, imageChannels(specs, card));
  if (await looksLikeIdx(file)) return openIdx(file);
  throw dataError('the kind of data is not known', {
    where: file,
    expected:
      'a .npz, .npy, .jsonl, .txt or .parquet file, IDX files (images.gz,labels.gz), a folder of images, or a .yaml data card',
  });
}

async function looksLikeIdx(path: string): Promise<boolean> {
  const source = await fileSource(path);
  const [a, b] = await source.read(0, Math.min(2, source.size));
  return (a === 0 && b === 0) || (a === 0x1f && b === 0x8b);
}
