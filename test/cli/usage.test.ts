import { filesBelow, flat, newFolder, resect, scratchFolder } from '../support/cli.js';
import { resnet8 } from '../support/fixtures.js';

const folder = scratchFolder();
const sparsify = ['sparsify', resnet8.model, '-o', 'sparse.onnx'];
const data = ['--calib', resnet8.train];
const half = [...sparsify, '--sparsity', '0.5'];
const evaluate = ['evaluate', resnet8.model, '--data', resnet8.test];

const wrong: [what: string, args: string[], says: RegExp][] = [
  ['an unknown command', ['frobnicate'], /frobnicate/],
  ['an unknown flag', [...half, '--frobnicate'], /--frobnicate/],
  ['a flag without its value', [...sparsify, '--sparsity'], /--sparsity/],
  ['no model', ['sparsify', '-o', 'sparse.onnx', '--sparsity', '0.5'], /model/i],
  ['no model to inspect', ['inspect'], /model/i],
  ['two models where one is due', ['sparsify', 'a.onnx', 'b.onnx', '-o', 'c.onnx'], /b\.onnx/],
  ['one model where two are due', ['diff', resnet8.model], /\bb\b|another model/],
  ['no data to evaluate on', ['evaluate', resnet8.model], /data/],
  ['no output', ['sparsify', resnet8.model, '--sparsity', '0.5'], /-o FILE/],
  ['no sparsity', [...sparsify, ...data], /--sparsity or --nm/],
  ['a sparsity of 2', [...sparsify, ...data, '--sparsity', '2'], /--sparsity.*2/],
  ['a sparsity of -0.5', [...sparsify, ...data, '--sparsity', '-0.5'], /--sparsity.*-0\.5/],
  ['a sparsity of 1', [...sparsify, ...data, '--sparsity', '1'], /--sparsity.*1/],
  [
    'a sparsity that is no number',
    [...sparsify, ...data, '--sparsity', 'half'],
    /--sparsity.*half/,
  ],
  ['sparsity and n:m', [...half, ...data, '--nm', '2:4'], /--sparsity or --nm/],
  ['more zeros than weights', [...sparsify, ...data, '--nm', '5:4'], /5:4/],
  ['n:m that is neither', [...sparsify, ...data, '--nm', '2-4'], /--nm.*2-4/],
  ['an unknown mask', [...half, ...data, '--init', 'luck'], /--init=luck/],
  ['an update without sparsegpt', [...half, ...data, '--update'], /--update.*sparsegpt/],
  [
    'an update, then a refinement',
    [...half, ...data, '--init', 'sparsegpt', '--update', '--refine', 'dsnot'],
    /--update.*dsnot/,
  ],
  ['no calibration data', half, /--calib/],
  ['half a cycle', [...half, ...data, '--cycles', '0.5'], /--cycles.*0\.5/],
  ['no samples', [...half, ...data, '--samples', '0'], /--samples.*0/],
  ['no threads', [...half, ...data, '--threads', '0'], /--threads.*0/],
  ['a negative seed', [...half, ...data, '--seed', '-1'], /--seed.*-1/],
  ['an unknown task', [...half, ...data, '--task', 'art'], /--task=art/],
  ['a gate without number', [...half, ...data, '--min', 'accuracy'], /--min.*accuracy/],
  ['a gate on an unknown metric', [...half, ...data, '--min', 'beauty=1'], /--min.*beauty/],
  ['a gate on what is not measured', [...half, ...data, '--min', 'accuracy=1'], /--min.*accuracy/],
  ['a size that cannot be read', [...half, ...data, '--max-size', 'huge'], /--max-size.*huge/],
  ['a speedup that is no number', [...half, ...data, '--min-speedup', 'x'], /--min-speedup.*x/],
  ['a report of an unknown kind', [...half, ...data, '--report', 'r.html'], /r\.html/],
  ['a drop from nothing', [...evaluate, '--max-drop', 'accuracy=0.1'], /--max-drop.*--against/],
  ['a dry run of no sparsity', [...sparsify, '--dry-run'], /--sparsity or --nm/],
  ['a dry run of two sparsities', [...half, '--nm', '2:4', '--dry-run'], /--sparsity or --nm/],
  ['a dry run of a lone update', [...half, '--update', '--dry-run'], /--update.*sparsegpt/],
];

test.each(wrong)('%s: exit 2, and what to do', async (what, args, says) => {
  const cwd = newFolder(folder, what.replace(/\W+/g, '-'));
  const { code, stdout, stderr } = await resect(args, { cwd });
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  // The complaint comes first; a usage summary may follow.
  expect(flat(stderr.replace(/ › /g, ' ').split('\n\nUSAGE')[0])).toMatch(says);
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(filesBelow(cwd)).toEqual([]);
});

test.each([wrong[1], wrong[10], wrong[4], wrong[16]])(
  '%s, with --json: exit 2, and an object that says so',
  async (_, args) => {
    const { code, stdout, stderr } = await resect([...args, '--json'], { cwd: folder });
    expect({ code, stderr }).toEqual({ code: 2, stderr: '' });
    expect(JSON.parse(stdout)).toEqual({
      error: expect.objectContaining({ message: expect.any(String), exitCode: 2 }),
    });
    expect(stdout.length).toBeLessThan(2000);
  },
);

describe('help', () => {
  const commands = ['diff', 'evaluate', 'inspect', 'sparsify'];
  test('names the commands', async () => {
    const { code, stdout } = await resect(['--help']);
    expect(code).toBe(0);
    for (const command of commands) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
  });

  test.each(commands)('of %s has a usage, flags and examples, in 80 columns', async (command) => {
    const { code, stdout } = await resect([command, '--help']);
    expect(code).toBe(0);
    for (const part of ['USAGE', 'FLAGS', 'EXAMPLES']) expect(stdout).toContain(part);
    const examples = stdout.indexOf('EXAMPLES');
    // A command line may be longer: it is there to be copied.
    const long = stdout
      .slice(0, examples)
      .split('\n')
      .filter((line) => line.length > 80);
    expect(long).toEqual([]);
  });

  test('the version', async () => {
    expect((await resect(['--version'])).stdout).toMatch(/^resect\/\d+\.\d+\.\d+ /);
  });
});
