import { readFileSync } from 'node:fs';
import { lossNames } from '../../src/autodiff/losses.js';
import { rules } from '../../src/autodiff/rules/index.js';
import * as resect from '../../src/index.js';
import { inRepository } from '../support/cli.js';

const page = readFileSync(inRepository('docs/autodiff.md'), 'utf8');

/** The rows of the table that begins with a heading. */
function table(heading: string): string[] {
  const [, after = ''] = page.split(`| ${heading} |`);
  const rows = after.split('\n').slice(2);
  return rows.slice(
    0,
    rows.findIndex((line) => !line.startsWith('|')),
  );
}

const code = (text: string): string[] => [...text.matchAll(/`([^`]+)`/g)].map(([, name]) => name);

test('the page lists the ops that have a rule, each once', () => {
  const listed = table('kind | ops').flatMap(code);
  expect(listed.sort()).toEqual([...rules.keys()].sort());
});

test('the page lists the losses', () => {
  const listed = table('loss | l of a row z | target | a row is').map((row) => code(row)[0]);
  expect(listed.sort()).toEqual([...lossNames].sort());
});

test('its example runs', async () => {
  const [, example] = /```js\n([\s\S]*?)```/.exec(page) ?? [];
  const [, names] = /^import \{([^}]*)\} from 'resect';\n/.exec(example) ?? [];
  const body = example.slice(example.indexOf('\n'));
  const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor as new (
    ...args: string[]
  ) => (api: object, console: object) => Promise<void>;
  const said: string[] = [];
  await new AsyncFunction('api', 'console', `const {${names}} = api;${body}`)(resect, {
    log: (line: string) => said.push(line),
  });
  expect(said).toEqual([
    expect.stringMatching(/^loss 0\.\d+, gradients of 10 parameters$/),
    '22 steps',
  ]);
});
