import type { LabelledModel } from '../models.js';

/** Metadata that say how a model was made, not what it is to be fed. */
const ours = 'resect.';

/** A note where metadata of the models contradict each other: they share one input, prepared one way. */
export function differingMetadata([first, ...others]: readonly LabelledModel[]): string[] {
  const own = entries(first);
  return others.flatMap((other) => {
    const theirs = entries(other);
    const keys = [...own.keys()].filter(
      (key) => theirs.has(key) && theirs.get(key) !== own.get(key),
    );
    if (keys.length === 0) return [];
    return [
      `Metadata of ${other.label} differ from those of ${first.label} (${keys.join(', ')}): if they tell how inputs are prepared, the merge is fed wrongly for one of them.`,
    ];
  });
}

const entries = ({ model }: LabelledModel): Map<string, string> =>
  new Map(
    (model.proto.metadataProps ?? []).flatMap(({ key = '', value = '' }) =>
      key.startsWith(ours) ? [] : [[key, value]],
    ),
  );
