import { type Model, tensorInfo } from '../../onnx/index.js';
import { openPart } from '../../runtime/part.js';
import type { Context } from '../method.js';
import { checkKernels } from './formats/check.js';
import type { StoredCodes } from './formats/layers.js';
import type { TernarizeLayer } from './layers.js';
import type { Settings } from './parameters.js';

/** Names shown of each list. */
const shown = 3;

/** The largest model that the runtime can write back, with weights unpacked. */
const largestCheck = 1.5e9;

/** What a user should know of packed weights. */
export function notesOn(
  settings: Settings,
  layers: readonly TernarizeLayer[],
  stored: readonly StoredCodes[],
  { calibration }: Pick<Context, 'calibration'>,
): string[] {
  const { format, pack, bias } = settings;
  const notes: string[] = [];
  if (!calibration)
    notes.push(
      'Without --calib each group of weights was fitted by itself. With a few hundred examples weights ' +
        'make up for each other, a bias repairs the mean, and layers that lose too much are found.',
    );
  if (bias === 'lambda')
    notes.push('--bias lambda does nothing measurable to weights that were not trained with it.');
  for (const [reason, names] of byReason(
    layers.flatMap(({ name, notes = [] }) => notes.map((n) => [n, name])),
  ))
    notes.push(`${capital(reason)}: ${names}.`);
  for (const [reason, names] of byReason(
    stored.flatMap(({ name, status, reason }) =>
      status === 'changed' && reason ? [[reason, name]] : [],
    ),
  ))
    notes.push(`Unpacked to floats at load, ${reason}: ${names}.`);
  if (format === 'ort' && stored.some(({ kernel }) => kernel === 'MatMulNBits'))
    notes.push(
      'MatMulNBits with 2 bits needs ONNX Runtime 1.29 or newer (--format ort4 runs fast since 1.20), and ' +
        'rounds activations to 8 bits.',
    );
  if (pack) notes.push('--pack trits makes the file smaller, and loading it slower.');
  if (format === 'standard')
    notes.push('standard makes the file small; in memory and in time, weights are floats again.');
  if (format === 'float')
    notes.push(
      'float stores what codes stand for as floats: neither smaller nor faster, for study.',
    );
  return notes;
}

/**
 * Layers for which ONNX Runtime takes other kernels than the format was made for, as the graph says that
 * it made of the model.
 * @throws {ResectError} exit 5 when the runtime refuses the model
 */
export async function kernelNotes(model: Model, stored: readonly StoredCodes[]): Promise<string[]> {
  const unpacked = stored
    .filter(({ kernel }) => kernel === 'float')
    .reduce((sum, { shape = [] }) => sum + 4 * shape.reduce((a, b) => a * b, 1), 0);
  const kept = (model.proto.graph?.initializer ?? []).reduce(
    (sum, tensor) => sum + tensorInfo(tensor).elements * 4,
    0,
  );
  if (unpacked + kept > largestCheck)
    return [
      'Which kernels ONNX Runtime takes was not checked: the model is too large to be written back.',
    ];
  const { bytes, folder } = await openPart(model, model.proto);
  const slow = (await checkKernels(bytes, stored, { folder })).filter(({ fast }) => !fast);
  return byReason(
    slow.map(({ name, reason = 'not the kernel it was made for' }) => [reason, name]),
  ).map(([reason, names]) => `SLOW here, ${reason}: ${names}.`);
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

/** Names by reason, as text. */
function byReason(pairs: readonly string[][]): [string, string][] {
  const names = new Map<string, string[]>();
  for (const [reason, name] of pairs) names.set(reason, [...(names.get(reason) ?? []), name]);
  return [...names].map(([reason, all]) => {
    const more = all.length > shown ? ` and ${all.length - shown} more` : '';
    return [reason, `${all.slice(0, shown).join(', ')}${more}`];
  });
}
