import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import {
  expectCleanFailure,
  filesBelow,
  inRepository,
  newFolder,
  output,
  resect,
  scratchFolder,
  sha256,
} from '../support/cli.js';
import { resnet8 } from '../support/fixtures.js';

const root = scratchFolder();
const flags = ['--sparsity', '0.5', '--init', 'magnitude', '--refine', 'none'];
/** Its pruned output is certain to be worse than this. */
const strict = ['--eval', resnet8.test, '--where', 'label=1', '--max-drop', 'accuracy=0'];
const failing = ['--sparsity', '0.9', '--init', 'magnitude', '--refine', 'none', ...strict];

/** A folder with a copy of the model in it. */
function place(name: string): { folder: string; model: string } {
  const folder = newFolder(root, name);
  copyFileSync(resnet8.model, join(folder, 'model.onnx'));
  return { folder, model: join(folder, 'model.onnx') };
}

const original = sha256(resnet8.model);
afterEach(() => expect(sha256(resnet8.model)).toBe(original));

describe('the input is never the output', () => {
  const refused = async (
    name: string,
    prepare: (folder: string, model: string) => { input?: string; output: string; cwd?: string },
  ) => {
    const { folder, model } = place(name);
    const { input = model, output: target, cwd } = prepare(folder, model);
    const before = filesBelow(folder);
    for (const force of [[], ['--force']]) {
      const outcome = await resect(['sparsify', input, '-o', target, ...flags, ...force], { cwd });
      expectCleanFailure(outcome, 7, /model\.onnx|alias/);
      expect(sha256(model)).toBe(original);
      expect(filesBelow(folder)).toEqual(before);
    }
  };

  test('by its own path', () => refused('same', (_, model) => ({ output: model })));

  test('by another path', () =>
    refused('relative', (folder, model) => ({
      output: join('..', relative(root, folder), '.', 'model.onnx'),
      input: model,
      cwd: folder,
    })));

  test('by a link to it', () =>
    refused('symlink', (folder, model) => {
      symlinkSync(model, join(folder, 'alias.onnx'));
      return { output: join(folder, 'alias.onnx') };
    }));

  test('when it was itself given by a link', () =>
    refused('symlink-input', (folder, model) => {
      symlinkSync('model.onnx', join(folder, 'alias.onnx'));
      return { input: join(folder, 'alias.onnx'), output: model };
    }));

  test('by its other name', () =>
    refused('hardlink', (folder, model) => {
      linkSync(model, join(folder, 'alias.onnx'));
      return { output: join(folder, 'alias.onnx') };
    }));

  test('below a linked folder', () =>
    refused('linked-folder', (folder) => {
      symlinkSync('.', join(folder, 'here'));
      return { output: join(folder, 'here', 'model.onnx') };
    }));

  test('nor are the weights that it keeps in another file', async () => {
    const { folder, model } = place('external');
    const outside = join(folder, 'outside.onnx');
    await output(['sparsify', model, '-o', outside, ...flags, '--external-data']);
    const before = sha256(`${outside}.data`);
    const more = ['--sparsity', '0.7', ...flags.slice(2)];
    const outcome = await resect([
      'sparsify',
      outside,
      '-o',
      `${outside}.data`,
      ...more,
      '--force',
    ]);
    expectCleanFailure(outcome, 7, /outside\.onnx\.data.*input/);
    expect(sha256(`${outside}.data`)).toBe(before);
  });
});

describe('nothing is written', () => {
  test('on a dry run', async () => {
    const { folder, model } = place('dry');
    await output(['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...flags, '--dry-run']);
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });

  test('when a gate fails', async () => {
    const { folder, model } = place('gate');
    const args = ['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...failing];
    const { code, stdout, stderr } = await resect(args);
    expect(code).toBe(4);
    expect(stdout).toMatch(/^FAILED: --max-drop accuracy=0 /m);
    expect(stderr).toMatch(/gate failed.*nothing was written/);
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });

  test('when there is a file already', async () => {
    const { folder, model } = place('existing');
    const target = join(folder, 'sparse.onnx');
    writeFileSync(target, 'mine');
    expectCleanFailure(
      await resect(['sparsify', model, '-o', target, ...flags]),
      7,
      /exists.*sparse\.onnx.*--force/,
    );
    expect(readFileSync(target, 'utf8')).toBe('mine');
  });

  test('when a gate fails, over a file that was there before', async () => {
    const { folder, model } = place('existing-gate');
    const target = join(folder, 'sparse.onnx');
    writeFileSync(target, 'mine');
    const { code } = await resect(['sparsify', model, '-o', target, '--force', ...failing]);
    expect(code).toBe(4);
    expect(readFileSync(target, 'utf8')).toBe('mine');
    expect(filesBelow(folder)).toEqual(['model.onnx', 'sparse.onnx']);
  });

  test.each([
    ['of a kind that there is not', 'report.html', 2],
    ['in a folder that is not there', 'no/folder/report.md', 7],
  ])('when a report is asked for %s', async (_, report, code) => {
    const { folder, model } = place(`report ${code}`);
    const args = ['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...flags];
    const outcome = await resect([...args, '--report', join(folder, report)]);
    expectCleanFailure(outcome, code, new RegExp(report));
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });

  test.each([
    ['in a folder that is not there', (folder: string) => join(folder, 'no', 'sparse.onnx')],
    ['below a file', (_: string) => join(inRepository('package.json'), 'sparse.onnx')],
    ['under a name that is too long', (folder: string) => join(folder, `${'n'.repeat(300)}.onnx`)],
    ['in place of a folder', (folder: string) => folder],
    ['in place of a device', (_: string) => '/dev/full'],
  ])('%s', async (name, target) => {
    const { folder, model } = place(name.replace(/\W+/g, '-'));
    const outcome = await resect(['sparsify', model, '-o', target(folder), '--force', ...flags]);
    expectCleanFailure(outcome, 7, /cannot write/i);
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });

  test('in place of a link to itself', async () => {
    const { folder, model } = place('loop');
    const target = join(folder, 'loop.onnx');
    symlinkSync('loop.onnx', target);
    expectCleanFailure(await resect(['sparsify', model, '-o', target, ...flags]), 7, /loop\.onnx/);
  });

  test('in place of a pipe', async () => {
    const { folder, model } = place('pipe');
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const outcome = await resect([
      'sparsify',
      model,
      '-o',
      join(folder, 'pipe'),
      ...flags,
      '--force',
    ]);
    expectCleanFailure(outcome, 7, /a pipe/);
  });

  test('when a report would take the place of the model', async () => {
    const { folder, model } = place('report-output');
    const target = join(folder, 'sparse.json');
    const { code } = await resect(['sparsify', model, '-o', target, ...flags, '--report', target]);
    expect(code).not.toBe(0);
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });

  // As root every folder can be written to.
  const unprivileged = process.getuid?.() === 0 ? test.skip : test;
  unprivileged('in a folder without permission', async () => {
    const { folder, model } = place('locked');
    mkdirSync(join(folder, 'locked'), { mode: 0o500 });
    const target = join(folder, 'locked', 'sparse.onnx');
    expectCleanFailure(
      await resect(['sparsify', model, '-o', target, ...flags]),
      7,
      /permission denied/,
    );
  });

  test('beyond the space that there is', () => {
    const { folder, model } = place('full');
    const target = join(folder, 'sparse.onnx');
    // A limit of 64 KiB per file is as good as a full disk.
    const command = `ulimit -f 128; exec "$0" "$@"`;
    const args = [process.execPath, inRepository('bin/run.js'), 'sparsify', model, '-o', target];
    const { status, stderr } = spawnSync('sh', ['-c', command, ...args, ...flags], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: newFolder(root, 'tmp') },
    });
    expect(status).toBe(7);
    expect(stderr).toMatch(/sparse\.onnx/);
    expect(filesBelow(folder)).toEqual(['model.onnx']);
  });
});

test('--keep-failed keeps what failed', async () => {
  const { folder, model } = place('keep');
  const args = ['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...failing, '--keep-failed'];
  const { code, stderr } = await resect(args);
  expect(code).toBe(4);
  expect(stderr).toMatch(/kept/);
  expect(filesBelow(folder)).toEqual(['model.onnx', 'sparse.onnx']);
});

test('--force replaces a file, and only what it names', async () => {
  const { folder, model } = place('force');
  const target = join(folder, 'sparse.onnx');
  writeFileSync(join(folder, 'elsewhere'), 'mine');
  symlinkSync('elsewhere', target);
  await output(['sparsify', model, '-o', target, ...flags, '--force', '--quiet']);
  expect(readFileSync(join(folder, 'elsewhere'), 'utf8')).toBe('mine');
  expect(await output(['inspect', target])).toContain('sparse.onnx');
});

test('a run leaves nothing but its output, anywhere', async () => {
  const { folder, model } = place('traces');
  const home = newFolder(root, 'home');
  const env = {
    HOME: home,
    TMPDIR: newFolder(home, 'tmp'),
    XDG_CACHE_HOME: newFolder(home, 'cache'),
    XDG_CONFIG_HOME: newFolder(home, 'config'),
    XDG_DATA_HOME: newFolder(home, 'data'),
  };
  const before = filesBelow(home);
  await output(['sparsify', model, '-o', join(folder, 'sparse.onnx'), ...flags, '--quiet'], {
    env,
  });
  expect(filesBelow(folder)).toEqual(['model.onnx', 'sparse.onnx']);
  expect(filesBelow(home)).toEqual(before);
  expect(existsSync(resnet8.model)).toBe(true);
});
