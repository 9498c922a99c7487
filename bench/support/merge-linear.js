// Merges two models half and half into a third, in a process of its own; prints the seconds it took.
//   node merge-linear.js A B OUT
import { weightedSum } from '../../dist/src/methods/merge/maths/linear.js';
import { prepare } from '../../dist/src/methods/merge/prepare.js';
import { mergeInto } from '../../dist/src/methods/merge/static/merge-into.js';
import { readModel, writeModel } from '../../dist/src/onnx/index.js';

const start = performance.now();
const [a, b, out] = process.argv.slice(2);
const models = [];
for (const label of [a, b]) models.push({ label, model: await readModel(label) });
const { tensors } = await prepare(models, () => true, { bn: 'merge' });
mergeInto(models, tensors, (values) => weightedSum(values, [0.5, 0.5]), {
  elementwise: true,
});
await writeModel(models[0].model, out);
console.log((performance.now() - start) / 1000);
