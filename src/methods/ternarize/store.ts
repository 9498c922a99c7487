import { batches } from '../../data/index.js';
import { modelInputs } from '../../graph/interface.js';
import type { Model } from '../../onnx/index.js';
import { measureRanges } from '../compress/formats/measured-ranges.js';
import type { Context } from '../method.js';
import type { Outcome } from './code-target.js';
import { storeFloats } from './formats/float.js';
import type { ChooseCodes, StoredCodes } from './formats/layers.js';
import { storeBlocks } from './formats/ort.js';
import { storePacked } from './formats/standard.js';
import { storeIntegers } from './formats/standard-int8.js';
import { bitsOf, restoreCodes } from './kept-codes.js';
import type { Settings } from './parameters.js';

/** Examples at once, to see activations. */
const batch = 8;

/** Stores codes in the format that was asked for, in place of the weights of `model`. */
export async function storeCodes(
  model: Model,
  outcomes: ReadonlyMap<string, Outcome>,
  { format, pack }: Pick<Settings, 'format' | 'pack'>,
  context: Pick<Context, 'calibration' | 'threads'>,
): Promise<StoredCodes[]> {
  const choose: ChooseCodes = ({ name }) => {
    const coded = outcomes.get(name)?.coded;
    return (
      coded && {
        codes: restoreCodes(coded.codes),
        bits: bitsOf[coded.codes.levels],
        bias: coded.biases.get(name),
      }
    );
  };
  switch (format) {
    case 'float':
      return storeFloats(model, choose);
    case 'standard':
      return storePacked(model, choose);
    case 'standard-int8':
      return storeIntegers(model, choose, await convolutionRanges(model, context));
    default:
      return storeBlocks(model, choose, { bits: format === 'ort' ? 2 : 4, pack });
  }
}

/** Ranges of activations, which convolutions in integers need; undefined where nothing is to be gained. */
async function convolutionRanges(
  model: Model,
  { calibration, threads }: Pick<Context, 'calibration' | 'threads'>,
) {
  const convolves = model.proto.graph?.node.some(({ opType }) => opType === 'Conv');
  if (!calibration || !convolves) return undefined;
  const { dataset, indices } = calibration;
  const specs = modelInputs(model.proto);
  const runs = async function* () {
    for await (const { feeds } of batches(dataset, indices, batch, specs)) yield feeds;
  };
  return measureRanges(model, runs, { rule: { kind: 'least-squares' }, threads });
}
