import { join } from 'node:path';
import { ResectError } from '../../src/errors.js';
import { inspectModel } from '../../src/evaluate/inspect.js';
import { diffModels } from '../../src/graph/diff.js';
import { sparsify } from '../../src/methods/sparsify/method.js';
import { readModel } from '../../src/onnx/index.js';
import { operate } from '../../src/recipe/operation.js';
import {
  expectCleanFailure,
  filesBelow,
  flat,
  inTurns,
  newFolder,
  type Outcome,
  outcomeOf,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { badGraphs } from '../support/malformed-graphs.js';
import { type BadModel, badModels } from '../support/malformed-models.js';

const folder = scratchFolder();
/** Needs no data, so that nothing but the model can be wrong. */
const magnitude = () => ['--sparsity', '0.5', '--init', 'magnitude', '--refine', 'none'];
const folderOf = (name: string) => join(folder, name.replace(/\W+/g, '-'));

/** What reaches the runtime, or could exhaust or block a process, gets one of its own. */
const isRisky = (bad: BadModel) =>
  badGraphs.includes(bad) || /promise|pipe|device|GiB|itself/.test(bad.name);

async function sparsifyBad(bad: BadModel, input: string, written: string): Promise<Outcome> {
  const model = join(input, 'model.onnx');
  const { flags = magnitude } = bad;
  if (isRisky(bad))
    return resect(['sparsify', model, '-o', written, ...flags(input)], { seconds: 30 });
  const needsNoData = { sparsity: 0.5, init: 'magnitude', refine: 'none' } as const;
  return outcomeOf(() =>
    operate({ method: sparsify, parameters: needsNoData, model, output: written }),
  );
}

interface Run {
  outcome: Outcome;
  before: string[];
  after: string[];
  written: string[];
}
const runs = new Map<string, Run>();

beforeAll(async () => {
  await inTurns(badModels, async (bad) => {
    const { name, make } = bad;
    const input = newFolder(folderOf(name));
    const output = newFolder(`${folderOf(name)}.out`);
    make(input);
    const before = filesBelow(input);
    const outcome = await sparsifyBad(bad, input, join(output, 'sparse.onnx'));
    runs.set(name, { outcome, before, after: filesBelow(input), written: filesBelow(output) });
  });
}, 300_000);

describe.each(badModels)('$name', ({ name, code, says }) => {
  test(`ends with ${code}, says why, and leaves nothing behind`, () => {
    const { outcome, before, after, written } = runs.get(name)!;
    expect(after).toEqual(before);
    if (code === 0) {
      expect(outcome).toMatchObject({ code, stderr: '' });
      expect(flat(outcome.stdout)).toMatch(says);
      expect(written).toEqual(['sparse.onnx']);
    } else {
      expectCleanFailure(outcome, code, says);
      expect(written).toEqual([]);
    }
    expect(outcome.megabytes ?? 0).toBeLessThan(500);
  });

  test('is inspected, planned and compared, or refused with an exit code', async () => {
    const path = join(folderOf(name), 'model.onnx');
    const selects = () => true;
    const parameters = sparsify.parameters.parse({ sparsity: 0.5 });
    for (const use of [
      async () => inspectModel(await readModel(path)),
      async () => sparsify.plan(await readModel(path), parameters, { selects }),
      async () => diffModels(await readModel(path), await readModel(path)),
    ]) {
      const error = await use().then(
        () => undefined,
        (reason) => reason,
      );
      if (error !== undefined) expect(error).toBeInstanceOf(ResectError);
    }
  });
});
