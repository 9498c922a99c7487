import type { Model } from '../onnx/index.js';
import { type Fingerprint, fingerprint } from '../runtime/fingerprint.js';
import { version } from '../version.js';

/** How a model came about, enough to make it again. */
export interface Provenance {
  tool: string;
  /** Method and parameters, without paths. */
  command: string;
  inputSha256: string;
  calibrationSha256?: string;
  /** Of a request to forget: the files of both sets. */
  forgetSha256?: string;
  retainSha256?: string;
  /** Of the models that were merged with it, in order, a base last. */
  mergedSha256?: string;
  seed: number;
  runtime: Fingerprint;
}

const prefix = 'resect.';

export function provenance(details: Omit<Provenance, 'tool' | 'runtime'>): Provenance {
  return { tool: `resect ${version}`, ...details, runtime: fingerprint() };
}

/**
 * Writes the provenance to the model's metadata under `resect.*`. What an earlier operation left
 * there is kept under `resect.1.*`, `resect.2.*`, …, the oldest first.
 */
export function stamp(
  model: Model,
  {
    tool,
    command,
    inputSha256,
    calibrationSha256,
    forgetSha256,
    retainSha256,
    mergedSha256,
    seed,
    runtime,
  }: Provenance,
): void {
  const props = model.proto.metadataProps ?? [];
  const generation =
    1 + Math.max(0, ...props.map((p) => Number(/^resect\.(\d+)\./.exec(p.key ?? '')?.[1] ?? 0)));
  const kept = props.map((p) =>
    p.key?.startsWith(prefix) && !/^resect\.\d+\./.test(p.key)
      ? { ...p, key: `${prefix}${generation}.${p.key.slice(prefix.length)}` }
      : p,
  );
  const entries: Record<string, string | undefined> = {
    tool,
    command,
    input_sha256: inputSha256,
    calibration_sha256: calibrationSha256,
    forget_sha256: forgetSha256,
    retain_sha256: retainSha256,
    merged_sha256: mergedSha256,
    seed: String(seed),
    onnxruntime: runtime.onnxruntime,
    cpu_features: runtime.cpuFeatures.join(' '),
  };
  model.proto.metadataProps = [
    ...kept,
    ...Object.entries(entries).flatMap(([key, value]) =>
      value === undefined ? [] : [{ key: prefix + key, value }],
    ),
  ];
}
