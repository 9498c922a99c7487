import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';

/** What decides the last bits of a floating-point result: runtime version and CPU. */
export interface Fingerprint {
  onnxruntime: string;
  node: string;
  platform: string;
  cpu: string;
  /** Vector extensions that ONNX Runtime's kernels choose by; empty where the system does not tell. */
  cpuFeatures: string[];
}

const kernelFeatures = [
  'avx',
  'avx2',
  'fma',
  'f16c',
  'avx512f',
  'avx512bw',
  'avx512_vnni',
  'avx512_bf16',
  'avx_vnni',
  'amx_int8',
  'amx_bf16',
  'asimddp',
  'i8mm',
  'bf16',
  'sve',
];

export function fingerprint(): Fingerprint {
  const { version } = createRequire(import.meta.url)('onnxruntime-node/package.json') as {
    version: string;
  };
  return {
    onnxruntime: version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
    cpuFeatures: cpuFeatures(),
  };
}

function cpuFeatures(): string[] {
  try {
    const line =
      readFileSync('/proc/cpuinfo', 'utf8').match(/^(?:flags|Features)\s*:(.*)$/m)?.[1] ?? '';
    const flags = new Set(line.trim().split(/\s+/));
    return kernelFeatures.filter((f) => flags.has(f));
  } catch {
    return [];
  }
}
