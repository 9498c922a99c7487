import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  filesBelow,
  inRepository,
  newFolder,
  output,
  resect,
  scratchFolder,
} from '../support/cli.js';
import { gptMoby, resnet8 } from '../support/fixtures.js';
import { linear, node, value, weight } from '../support/protos.js';

const folder = scratchFolder();
const program = inRepository('bin/run.js');
const sparsify = (name: string) => [
  ...['sparsify', resnet8.model, '-o', join(folder, name), '--force'],
  ...['--sparsity', '0.5', '--calib', resnet8.train, '--samples', '32', '--eval', resnet8.test],
];

const commands: [string, string[]][] = [
  ['inspect', ['inspect', resnet8.model]],
  ['inspect several', ['inspect', resnet8.model, gptMoby.model]],
  ['evaluate', ['evaluate', resnet8.model, '--data', resnet8.test, '--samples', '64']],
  [
    'evaluate against',
    ['evaluate', resnet8.model, '--data', resnet8.test, '--against', resnet8.model],
  ],
  ['diff', ['diff', resnet8.model, gptMoby.model]],
  ['sparsify', sparsify('text.onnx')],
  ['dry run', [...sparsify('dry.onnx'), '--dry-run']],
];

test.each(commands)('%s: plain text of 80 columns, nothing on stderr', async (_, args) => {
  const { stdout, stderr } = await resect(args, { env: { TERM: 'xterm-256color' } });
  expect(stderr).toBe('');
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f]/);
  // Paths stay whole, so that they can be copied; prose and tables end in time.
  const long = stdout.split('\n').filter((line) => line.length > 80 && !line.includes('/'));
  expect(long).toEqual([]);
});

test.each(commands)('%s --json: one object, nothing else', async (_, args) => {
  const { stdout, stderr } = await resect([...args, '--json']);
  expect(stderr).toBe('');
  expect(typeof JSON.parse(stdout)).toBe('object');
});

test('an error with --json is one object, too', async () => {
  const { code, stdout, stderr } = await resect(['inspect', 'nowhere.onnx', '--json']);
  expect({ code, stderr }).toEqual({ code: 7, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({
    error: { message: expect.any(String), exitCode: 7, where: 'nowhere.onnx' },
  });
});

test('a failed gate with --json is a result, with its exit code', async () => {
  const gate = ['--max-drop', 'accuracy=-1'];
  const { code, stdout, stderr } = await resect([...sparsify('gate.onnx'), ...gate, '--json']);
  expect({ code, stderr }).toEqual({ code: 4, stderr: '' });
  expect(JSON.parse(stdout)).toMatchObject({ gates: [{ passed: false }] });
});

test('--quiet is quiet', async () => {
  expect(await output([...sparsify('quiet.onnx'), '--quiet'])).toBe('');
});

test('names in a model do not reach the terminal as commands to it', async () => {
  const evil = '\x1b[2J\x1b]0;title\x07\r\n\x9b31m';
  const model = join(folder, 'evil.onnx');
  const { input, output: outputs } = {
    input: [value(`x${evil}`, [`batch${evil}`, 8])],
    output: [value(`y${evil}`, ['batch', 4])],
  };
  writeFileSync(
    model,
    linear(
      {
        node: [
          node('MatMul', [`x${evil}`, `w${evil}`], [`y${evil}`], {}, { name: `multiply${evil}` }),
          node(`Op${evil}`, [`y${evil}`], [`z${evil}`], {}, { domain: 'custom' }),
        ],
        initializer: [weight(`w${evil}`, [8, 4])],
        input,
        output: outputs,
      },
      { producerName: evil, metadataProps: [{ key: `key${evil}`, value: `value${evil}` }] },
    ),
  );
  const broken = join(folder, 'evil-error.onnx');
  writeFileSync(broken, linear({ node: [node('MatMul', ['x', `w${evil}`], ['y'])] }));
  for (const args of [
    ['inspect', model],
    ['inspect', broken],
    ['diff', model, broken],
    ['sparsify', model, '--sparsity', '0.5', '--dry-run'],
  ]) {
    const { stdout, stderr } = await resect(args);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
    expect(stdout + stderr).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/);
  }
});

test('a reader that goes away is no reason to complain', () => {
  const command = `"$0" "$1" diff "$2" "$3" --json | head -c 20`;
  const files = [resnet8.model, gptMoby.model];
  const { stdout, stderr } = spawnSync('sh', ['-c', command, process.execPath, program, ...files], {
    encoding: 'utf8',
  });
  expect(stdout).toHaveLength(20);
  expect(stderr).toBe('');
});

describe.each(['SIGINT', 'SIGTERM'] as const)('%s', (signal) => {
  /** Runs a long operation and interrupts it when `ready` says so. */
  const interrupt = (own: string, ready: () => boolean) =>
    new Promise<{ code: number | null; by: NodeJS.Signals | null; stderr: string }>((resolve) => {
      const flags = ['--sparsity', '0.5', '--calib', gptMoby.calib, '--eval', gptMoby.heldout];
      const args = ['sparsify', gptMoby.model, '-o', join(own, 'sparse.onnx'), ...flags];
      const child = spawn(process.execPath, [program, ...args], {
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let stderr = '';
      child.stderr.on('data', (text) => {
        stderr += text;
      });
      const timer = setInterval(() => {
        if (!ready()) return;
        clearInterval(timer);
        child.kill(signal);
      }, 5);
      child.on('close', (code, by) => {
        clearInterval(timer);
        resolve({ code, by, stderr });
      });
    });

  test.each<[string, (own: string) => () => boolean]>([
    [
      'while it computes',
      () => {
        const start = performance.now();
        return () => performance.now() - start > 1500;
      },
    ],
    ['while its output is checked', (own) => () => filesBelow(own).length > 0],
  ])('%s: it ends, and nothing is left', async (name, ready) => {
    const own = newFolder(folder, `${signal} ${name}`);
    const { code, by, stderr } = await interrupt(own, ready(own));
    expect(code === 130 || by === signal).toBe(true);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(filesBelow(own)).toEqual([]);
  });
});
