import { join } from 'node:path';
import {
  expectCleanFailure,
  filesBelow,
  inRepository,
  inTurns,
  newFolder,
  type Outcome,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { badData } from '../support/malformed-data.js';

const folder = scratchFolder();
const modelOf = (name: string) => inRepository(`fixtures/${name}/${name}.onnx`);
const outcomes = new Map<string, Outcome>();
const left = new Map<string, string[]>();

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
    outcomes.set(name, await resect(['evaluate', modelOf(model), ...flags], options));
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
  expect(outcome.megabytes).toBeLessThan(500);
});

test.each(calibrations)('as calibration data, $name: exit $code', ({ name, code, says }) => {
  expectCleanFailure(outcomes.get(`calib ${name}`)!, code, says);
});
