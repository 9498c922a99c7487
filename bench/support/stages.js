// One sparsify in this process, stage by stage; prints the seconds of each as JSON.
//   node stages.js MODEL CALIB OUT THREADS PARAMETERS(JSON)
import { operate } from '../../dist/src/index.js';
import { sparsify } from '../../dist/src/methods/sparsify/method.js';

const [model, calib, output, threads, parameters] = process.argv.slice(2);
const stages = new Map();
let current = 'open';
let wall = performance.now();
let cpu = process.cpuUsage();

/** Counts what was used since the last call for the stage that was under way. */
function mark(next) {
  const { user, system } = process.cpuUsage(cpu);
  const now = performance.now();
  const used = stages.get(current) ?? { wall: 0, cpu: 0 };
  used.wall += (now - wall) / 1e3;
  used.cpu += (user + system) / 1e6;
  stages.set(current, used);
  [wall, cpu, current] = [now, process.cpuUsage(), next];
}

await operate({
  method: sparsify,
  parameters: JSON.parse(parameters),
  model,
  calib,
  output,
  threads: Number(threads),
  // Segments are numbered: `calibrate 2/7`.
  progress: (stage) => mark(stage.split(' ')[0]),
});
mark();
console.log(JSON.stringify(Object.fromEntries(stages)));
