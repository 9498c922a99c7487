// One case of bench/autodiff.js, in a process of its own: prints what autodiff-reference.py prints.
//   node gradient-step.js CASE FOLDER REPEAT
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gradients } from '../../dist/src/autodiff/gradients.js';
import { openDataset } from '../../dist/src/data/index.js';
import { computeImportances } from '../../dist/src/methods/unlearn/ssd/importance.js';
import { readModel } from '../../dist/src/onnx/index.js';
import { readNpy } from './arrays.js';

const [name, folder, repeat] = process.argv.slice(2);
const images = 2000;
/** Name: network, batch, steps per repeat, as in autodiff-reference.py. */
const steps = {
  'cnn-1': ['cnn', 1, 200],
  'cnn-16': ['cnn', 16, 50],
  'cnn-64': ['cnn', 64, 20],
  'resnet18-16': ['resnet18', 16, 1],
  'transformer-16': ['transformer', 16, 1],
};
const importances = { 'ssd-64': 64, 'ssd-1': 1 };

async function stepper() {
  const [net, batch, count] = steps[name];
  const model = await gradients(await readModel(join(folder, `${net}.onnx`)), {
    loss: 'cross-entropy',
  });
  const part = ({ dims: [, ...rest], data }) => {
    const size = batch * rest.reduce((a, b) => a * b, 1);
    return { dims: [batch, ...rest], data: data.slice(0, size) };
  };
  const [x, y] = ['inputs', 'targets'].map((kind) =>
    part(readNpy(readFileSync(join(folder, `${net}.${kind}.npy`)))),
  );
  const [input] = model.inputs;
  const feeds = { [input.name]: { dtype: input.dtype, ...x } };
  const target = { target: { dtype: 'int64', dims: [y.data.length], data: y.data } };
  const work = async () => {
    for (let i = 0; i < count; i++) await model.run(feeds, target);
  };
  return { work, count };
}

/** The importance pass as `unlearn ssd` makes it, with the decoding of the images. */
async function importancePass() {
  const fixtures = fileURLToPath(new URL('../../fixtures/golden/ssd/', import.meta.url));
  const model = await gradients(await readModel(join(fixtures, 'cnn/cnn.onnx')), {
    loss: 'cross-entropy',
  });
  const dataset = await openDataset(join(fixtures, 'data/train.yaml'), model.inputs);
  const indices = Array.from({ length: images }, (_, i) => i);
  const options = {
    task: 'classification',
    kind: 'fisher-batch',
    loss: 'ce-mean-logits',
    batchSize: importances[name],
    order: 'as-given',
    modelSha256: '',
    progress: () => {},
  };
  return { work: () => computeImportances(model, { dataset, indices }, options), count: 1 };
}

const { work, count } = await (name in steps ? stepper() : importancePass());
await work();
const cpuSeconds = [];
const wallSeconds = [];
for (let i = 0; i < repeat; i++) {
  const before = process.cpuUsage();
  const start = performance.now();
  await work();
  const { user, system } = process.cpuUsage(before);
  cpuSeconds.push((user + system) / 1e6 / count);
  wallSeconds.push((performance.now() - start) / 1e3 / count);
}
console.log(JSON.stringify({ case: name, cpuSeconds, wallSeconds }));
