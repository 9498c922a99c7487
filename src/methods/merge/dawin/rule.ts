import type { Coefficients } from '../dynamic/merge-dynamic.js';
import { betaMixture } from '../maths/clusters.js';
import { dawin, dawinOffset } from '../maths/dawin.js';
import type { DawinParameters } from './parameters.js';

/** The coefficient of DaWin with these parameters. */
export function dawinCoefficients(given: DawinParameters): Coefficients {
  const temperature = {
    generalist: given.generalistTemperature,
    expert: given.expertTemperature,
  };
  return {
    temperature,
    lambdaOn: 'expert',
    prefix: 'dawin',
    rule(observation, notes) {
      if (!given.offset || !observation) return { kind: 'entropy', temperature };
      const { generalist, expert } = observation.entropy;
      const offset = dawinOffset(generalist, expert);
      notes.push(`Offset ${offset.offset.toPrecision(4)}, weight ${offset.weight.toPrecision(4)}.`);
      return { kind: 'entropy', temperature, offset };
    },
    shares({ entropy }, rule) {
      const offset = rule.kind === 'entropy' ? rule.offset : undefined;
      return dawin(entropy.generalist, entropy.expert, offset).map((l) => 1 - l);
    },
    centres: betaMixture,
  };
}
