import type { StoredLayer } from './formats/layers.js';
import type { CompressLayer } from './layers.js';
import { type CompressParameters, formatOf } from './parameters.js';

export interface Facts {
  stored?: readonly StoredLayer[];
  calibrated?: boolean;
  /** Whether most convolutions have BatchNormalizations behind them. */
  normalized?: boolean;
}

/** Names shown of each list. */
const shown = 3;

/** What a user should know of a compression. */
export function notesOn(
  given: CompressParameters,
  layers: readonly CompressLayer[],
  { stored = [], calibrated, normalized }: Facts,
): string[] {
  const notes: string[] = [];
  if (layers.every(({ status }) => status !== 'changed'))
    notes.push('Nothing changed: see --ratio and --bits, and why channels stay.');
  const kept = layers.filter((layer) => layer.kept && layer.kept !== 'ratio 0');
  for (const [reason, names] of byReason(kept.map(({ name, kept }) => [kept, name])))
    notes.push(`All channels stay, ${reason}: ${names}.`);
  const format = formatOf(given);
  const rounds = layers.some(({ bits }) => bits !== undefined);
  const goesByMoments = given.method === 'gauss' || (rounds && format === 'qdq');
  if (normalized === false && !calibrated && goesByMoments)
    notes.push(
      'Few convolutions have a BatchNormalization behind them, whose statistics repairs and ranges of ' +
        'activations go by: exporters fold it into the weights. What comes of random inputs was used in ' +
        'its place, which is much worse. Give unlabelled examples with --calib, or export the model with ' +
        'its BatchNormalizations (torch.onnx.export with training=TrainingMode.PRESERVE).',
    );
  if (rounds) {
    if (format === 'weight-only')
      notes.push(
        'weight-only saves bytes, not time: weights are made floats again in every run. The session ' +
          'option session.disable_quant_qdq = "1" of ONNX Runtime does it once, when the model is loaded.',
      );
    if (format === 'float')
      notes.push('float stores rounded weights as floats: neither smaller nor faster, for study.');
    const floats = stored.filter(({ integer }) => integer === false);
    const alike = (reason = '') =>
      /^no range of .* is known$/.test(reason) ? 'the range of their input is not known' : reason;
    for (const [reason, names] of byReason(floats.map(({ name, reason }) => [alike(reason), name])))
      notes.push(`Computed in floats, ${reason}: ${names}.`);
  }
  return notes;
}

/** Names by reason, as text. */
function byReason(pairs: readonly [string | undefined, string][]): [string, string][] {
  const names = new Map<string, string[]>();
  for (const [reason = '', name] of pairs) names.set(reason, [...(names.get(reason) ?? []), name]);
  return [...names].map(([reason, all]) => {
    const more = all.length > shown ? ` and ${all.length - shown} more` : '';
    return [reason, `${all.slice(0, shown).join(', ')}${more}`];
  });
}
