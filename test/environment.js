import { TestEnvironment } from 'jest-environment-node';

const shared = [
  'ArrayBuffer',
  'SharedArrayBuffer',
  'DataView',
  'Uint8Array',
  'Int8Array',
  'Uint8ClampedArray',
  'Uint16Array',
  'Int16Array',
  'Uint32Array',
  'Int32Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
];

/**
 * jest gives each test file its own globals. ONNX Runtime checks typed arrays against the outer
 * constructors, so tests must share those or every tensor is refused.
 */
export default class extends TestEnvironment {
  async setup() {
    await super.setup();
    process.env.ORT_DISABLE_TELEMETRY = '1';
    for (const name of shared) this.global[name] = globalThis[name];
  }
}
