import { setTimeout as wait } from 'node:timers/promises';
import { terminalProgress } from '../../src/cli/progress.js';

/** Draws on what looks like a terminal; returns all that was written. */
function terminal(isTTY = true) {
  const written: string[] = [];
  const stream = { isTTY, write: (text: string) => written.push(text) };
  return { written, progress: terminalProgress(stream as unknown as NodeJS.WriteStream) };
}

test('stage, share, time left and what is worth watching', async () => {
  const { written, progress } = terminal();
  progress.show('unlearn', 1, 20, 'loss 3.2');
  await wait(120);
  progress.show('unlearn', 11, 20, 'loss 2.1');
  progress.show('repair', 0, 1);
  progress.clear();
  const lines = written.filter((text) => text.trim());
  expect(lines[0]).toBe('unlearn 1/20, loss 3.2');
  expect(lines[1]).toMatch(/^unlearn 11\/20, \d+ ms left, loss 2\.1$/);
  expect(lines[2]).toBe('repair …');
  expect(written.at(-1)?.trim()).toBe('');
});

test('a run that goes on is not taken for a fast one', async () => {
  const { written, progress } = terminal();
  progress.show('unlearn', 1000, 1010);
  await wait(120);
  progress.show('unlearn', 1001, 1010);
  const left = Number(/1001\/1010, ([\d.]+) s left/.exec(written.join('\n'))?.[1]);
  // Nine steps of an eighth of a second.
  expect(left).toBeGreaterThan(0.9);
});

test('lines are cut to the width of a terminal, and nothing is drawn elsewhere', () => {
  const { written, progress } = terminal();
  progress.show('stage', 1, 2, 'x'.repeat(200));
  expect(written.at(-1)).toHaveLength(79);
  const piped = terminal(false);
  piped.progress.show('stage', 1, 2);
  piped.progress.clear();
  expect(piped.written).toEqual([]);
});
