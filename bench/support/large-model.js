// A model of MatMul layers, 48 of 64 MiB each by default, with weights in a file of their own: for questions
// of memory.
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { DataLocation, dtypeCode, encodeModel } from '../../dist/src/onnx/index.js';
import { uniform } from './arrays.js';

const width = 4096;

/**
 * Writes PATH and PATH.data; returns their size in bytes. A layer holds one stretch of random numbers
 * over and over; no two layers the same, for the runtime keeps equal packed weights only once.
 */
export function writeLargeModel(path, { seed = 3, layers = 48, inner = 4096 } = {}) {
  const layerBytes = 4 * width * inner;
  const random = uniform(seed);
  const period = Math.min(2 ** 22, width * inner);
  const numbers = Float32Array.from({ length: period + layers }, () => (random() - 0.5) * 0.05);
  const data = openSync(`${path}.data`, 'w');
  for (let i = 0; i < layers; i++) {
    const stretch = numbers.subarray(i, i + period);
    for (let done = 0; done < layerBytes; done += stretch.byteLength) writeSync(data, stretch);
  }
  closeSync(data);

  const float = (dims) => ({
    tensorType: {
      elemType: dtypeCode('float32'),
      shape: { dim: dims.map((d) => (typeof d === 'string' ? { dimParam: d } : { dimValue: d })) },
    },
  });
  const shapeOf = (i) => (i % 2 === 0 ? [width, inner] : [inner, width]);
  const bytes = encodeModel({
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    producerName: 'resect bench',
    graph: {
      name: 'large',
      node: Array.from({ length: layers }, (_, i) => ({
        name: `layer${i}`,
        opType: 'MatMul',
        input: [i === 0 ? 'x' : `y${i - 1}`, `w${i}`],
        output: [`y${i}`],
        attribute: [],
      })),
      initializer: Array.from({ length: layers }, (_, i) => ({
        name: `w${i}`,
        dims: shapeOf(i),
        dataType: dtypeCode('float32'),
        dataLocation: DataLocation.external,
        externalData: [
          { key: 'location', value: `${basename(path)}.data` },
          { key: 'offset', value: String(i * layerBytes) },
          { key: 'length', value: String(layerBytes) },
        ],
      })),
      valueInfo: [],
      input: [{ name: 'x', type: float(['batch', width]) }],
      output: [{ name: `y${layers - 1}`, type: float(['batch', width]) }],
    },
  });
  writeFileSync(path, bytes);
  return bytes.length + layers * layerBytes;
}
