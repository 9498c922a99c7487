// One case of bench/laf.js, in a process of its own: prints what laf-reference.py prints.
//   node laf-step.js CASE REPEAT THREADS
import { fileURLToPath } from 'node:url';
import { gradients } from '../../dist/src/autodiff/gradients.js';
import { Alternation } from '../../dist/src/methods/unlearn/laf/alternation.js';
import { findSplits } from '../../dist/src/methods/unlearn/laf/split.js';
import { initialWeights, vaeSizes } from '../../dist/src/methods/unlearn/laf/vae.js';
import { readModel } from '../../dist/src/onnx/index.js';

const [name, repeat, threads] = process.argv.slice(2);
const [batch, latent, pairs] = [32, 8, 10];
const cases = {
  cnn: ['golden/laf/laf.onnx', '/fc1/Gemm_output_0'],
  resnet8: ['resnet8/resnet8.onnx'],
};
const [file, split] = cases[name];
const source = await readModel(fileURLToPath(new URL(`../../fixtures/${file}`, import.meta.url)));
const { chosen } = await findSplits(source, split);
const model = await gradients(source, {
  loss: { seeds: [chosen.value] },
  output: chosen.value,
  parameters: ({ tensor }) => chosen.extractor.has(tensor),
});
const sizes = vaeSizes(chosen.width, latent);
const alternation = new Alternation(model, {
  split: chosen.value,
  sizes,
  vaes: { all: initialWeights(sizes, Math.random), forgotten: initialWeights(sizes, Math.random) },
  rates: { unlearning: 2e-4, alignment: 4e-4 },
  temperature: 20,
  threads: Number(threads),
});

const drawn = (dims) => ({
  dtype: 'float32',
  dims,
  data: Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, Math.random),
});
async function side() {
  const feeds = { [model.inputs[0].name]: drawn([batch, 1, 28, 28]) };
  const { data } = await model.predict(feeds);
  const noise = { values: drawn([batch, latent]).data, width: latent };
  return { feeds, teacher: { values: data, width: chosen.width }, noise };
}
const pair = { kept: await side(), forgotten: await side() };

for (let i = 0; i < 3; i++) await alternation.step(pair);
const cpuSeconds = [];
const wallSeconds = [];
for (let r = 0; r < Number(repeat); r++) {
  const [cpu, start] = [process.cpuUsage(), performance.now()];
  for (let i = 0; i < pairs; i++) await alternation.step(pair);
  const { user, system } = process.cpuUsage(cpu);
  cpuSeconds.push((user + system) / 1e6 / pairs);
  wallSeconds.push((performance.now() - start) / 1e3 / pairs);
}
await alternation.release();
await model.release();
console.log(JSON.stringify({ cpuSeconds, wallSeconds }));
