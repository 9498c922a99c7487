import type { Progress } from '../methods/method.js';
import { duration } from '../report/format.js';

/** Shows a stage, how much of it is done and how long it will take, on a terminal only. */
export function terminalProgress(stream: NodeJS.WriteStream = process.stderr) {
  let stage = '';
  let start = 0;
  /** How much was done when the stage began: a resumed run does not begin with nothing. */
  let first = 0;
  let drawn = 0;
  let last = 0;
  const clear = () => {
    if (drawn > 0) stream.write(`\r${' '.repeat(drawn)}\r`);
    drawn = 0;
  };
  const show: Progress = (name, done, total, detail) => {
    const now = performance.now();
    if (name !== stage) {
      stage = name;
      start = now;
      first = done;
    } else if (now - last < 100) return;
    last = now;
    const left =
      done > first && done < total
        ? `, ${duration(((now - start) / (done - first) / 1000) * (total - done))} left`
        : '';
    const more = detail === undefined ? '' : `, ${detail}`;
    const text = `${name} ${total > 1 ? `${done}/${total}` : '…'}${left}${more}`.slice(0, 79);
    clear();
    stream.write(text);
    drawn = text.length;
  };
  return { show: stream.isTTY ? show : () => {}, clear };
}
