// What the calibration of a model costs at the least: one plain run of each sample, and a copy of the file.
//   node bare-run.js MODEL IDS.npy TOKENS THREADS COPY
import { copyFileSync } from 'node:fs';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { readInt64Npy } from './arrays.js';

const [model, data, length, threads, copy] = process.argv.slice(2);
const ids = readInt64Npy(data);
const tokens = Number(length);
const session = await InferenceSession.create(model, { intraOpNumThreads: Number(threads) });
for (let i = 0; i < ids.length; i += tokens) {
  await session.run({ input_ids: new Tensor('int64', ids.slice(i, i + tokens), [1, tokens]) });
}
await session.release();
copyFileSync(model, copy);
