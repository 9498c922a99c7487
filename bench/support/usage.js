// Loaded into a measured process with --import: leaves what it used in the file that the environment names.
import { readFileSync, writeFileSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';

/**
 * Peak resident memory in bytes. Where the system tells it, that of the program alone: `maxRSS` also
 * counts the moment between fork and exec, when the child still has its parent's pages.
 */
function peakMemory() {
  try {
    const status = readFileSync('/proc/self/status', 'utf8');
    return 1024 * Number(/^VmHWM:\s*(\d+) kB/m.exec(status)[1]);
  } catch {
    return 1024 * process.resourceUsage().maxRSS;
  }
}

if (isMainThread) {
  process.on('exit', () => {
    const { user, system } = process.cpuUsage();
    const usage = { cpu: (user + system) / 1e6, peak: peakMemory() };
    writeFileSync(process.env.RESECT_BENCH_USAGE, JSON.stringify(usage));
  });
}
