import { join } from 'node:path';
import { evaluate } from '../../src/recipe/evaluation.js';
import {
  expectCleanFailure,
  filesBelow,
  inRepository,
  inTurns,
  newFolder,
  type Outcome,
  outcomeOf,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { badData } from '../support/malformed-data.js';

const folder = scratchFolder();
const modelOf = (name: string) => inRepository(`fixtures/${name}/${name}.onnx`);
const outcomes = new Map<string, Outcome>();
const left = new Map<string, string[]>();

/** What could exhaust or block a process gets one of its own. */
const risky = /promise|bomb|size|deep|pipe|device|without end|60000/;

async function evaluateBad(model: string, flags: string[], name: string, cwd: string) {
  if (risky.test(name)) return resect(['evaluate', model, ...flags], { cwd, seconds: 30 });
  const pairs = flags.flatMap((flag, i) => (i % 2 ? [] : [[flag.slice(2), flags[i + 1]]]));
  return outcomeOf(() => evaluate({ model, ...Object.fromEntries(pairs) }));
}

/** The same data, given as calibration data to a command that writes. */
const asCalibration = (flags: string[]) =>
  flags.map((flag) => (flag === '--data' ? '--calib' : flag));
const calibrations = badData.filter(({ name }) => /promise|not numbers|pickled|bomb/.test(name));

beforeAll(async () => {
  await inTurns(badData, async ({ name, make, model }) => {
    const own = newFolder(folder, name.replace(/\W+/g, '-'));
    const flags = make(own);
    const before = filesBelow(own);
    const options = { cwd: own, seconds: 30 };
    outcomes.set(name, await evaluateBad(modelOf(model), flags, name, own));
    if (calibrations.some((bad) => bad.name === name)) {
      const output = join(own, 'sparse.onnx');
      const rest = ['-o', output, '--sparsity', '0.5', ...asCalibration(flags)];
      outcomes.set(`calib ${name}`, await resect(['sparsify', modelOf(model), ...rest], options));
    }
    left.set(
      name,
      filesBelow(own).filter((file) => !before.includes(file)),
    );
  });
}, 300_000);

test.each(badData)('$name: exit $code', ({ name, code, says }) => {
  const outcome = outcomes.get(name)!;
  expectCleanFailure(outcome, code, says);
  expect(left.get(name)).toEqual([]);
  expect(outcome.megabytes ?? 0).toBeLessThan(500);
});

test.each(calibrations)('as calibration data, $name: exit $code', ({ name, code, says }) => {
  expectCleanFailure(outcomes.get(`calib ${name}`)!, code, says);
});
