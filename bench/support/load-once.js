// Loads a model on one thread, in a process of its own, and runs it once with every free dimension 1:
// prints CPU seconds of loading, and resident memory before and after, in bytes, as JSON.
//   node load-once.js MODEL
import { InferenceSession, Tensor } from 'onnxruntime-node';

const arrays = { float32: Float32Array, int64: BigInt64Array };

const before = process.memoryUsage.rss();
const used = process.cpuUsage();
const session = await InferenceSession.create(process.argv[2], {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  logSeverityLevel: 4,
});
const { user, system } = process.cpuUsage(used);
const feeds = {};
for (const { name, type, shape } of session.inputMetadata) {
  const dims = shape.map((d) => (typeof d === 'number' && d > 0 ? d : 1));
  const zeros = new arrays[type](dims.reduce((a, b) => a * b, 1));
  feeds[name] = new Tensor(type, zeros, dims);
}
await session.run(feeds);
const after = process.memoryUsage.rss();
console.log(JSON.stringify({ load: (user + system) / 1e6, before, after }));
