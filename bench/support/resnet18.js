// ResNet-18 for 224 x 224 images (11.7 M parameters) with random weights, and statistics in its
// BatchNormalizations that such weights have on unit noise.
import { writeFileSync } from 'node:fs';
import { normal, uniform } from '../../dist/src/data/index.js';
import { float, int, ints, makeNode } from '../../dist/src/graph/build.js';
import { dtypeCode, encodeModel, makeTensor, withSession } from '../../dist/src/index.js';

const side = 224;
const classes = 1000;
const stages = [64, 128, 256, 512];
const epsilon = 1e-5;
/** Images of noise that statistics are taken on. */
const noise = 4;

const product = (dims) => dims.reduce((a, b) => a * b, 1);

/**
 * The network as a graph.
 * @param statistics running means and variances by name; without them those of the batch are computed
 *   in their place, and are outputs
 */
function network(statistics) {
  const random = uniform(18);
  const gaussian = normal(random);
  const node = [];
  const initializer = [];
  const outputs = [];
  const store = (name, shape, draw) => {
    const values = Float32Array.from({ length: product(shape) }, draw);
    const bytes = new Uint8Array(values.buffer);
    initializer.push(makeTensor({ name, dtype: 'float32', shape, bytes }));
    return name;
  };
  const emit = (opType, input, output, attribute) => {
    node.push(makeNode(opType, input, output, attribute));
    return output;
  };

  const overChannels = [ints('axes', [0, 2, 3]), int('keepdims', 0)];
  const momentsOf = (x, mean, variance) => {
    emit('ReduceMean', [x], mean, overChannels);
    emit('Mul', [x, x], `${x}/squares`);
    emit('ReduceMean', [`${x}/squares`], `${x}/power`, overChannels);
    emit('Mul', [mean, mean], `${mean}/square`);
    emit('Sub', [`${x}/power`, `${mean}/square`], variance);
  };
  const batchNorm = (x, name, channels) => {
    const scale = store(`${name}.weight`, [channels], () => 0.5 + random());
    const bias = store(`${name}.bias`, [channels], () => 0.3 * gaussian());
    const names = [`${name}.running_mean`, `${name}.running_var`];
    if (statistics) for (const n of names) store(n, [channels], (_, i) => statistics[n].data[i]);
    else momentsOf(x, ...names);
    outputs.push(...names);
    return emit('BatchNormalization', [x, scale, bias, ...names], `${name}/y`, [
      float('epsilon', epsilon),
    ]);
  };
  /** A convolution with its normalization; the padding keeps the size but for the stride. */
  const conv = (x, name, { from, to, kernel, stride = 1 }) => {
    const shape = [to, from, kernel, kernel];
    const deviation = Math.sqrt(2 / (from * kernel * kernel));
    const weight = store(`${name}.weight`, shape, () => deviation * gaussian());
    const y = emit('Conv', [x, weight], `${name}/conv`, [
      ints('kernel_shape', [kernel, kernel]),
      ints('strides', [stride, stride]),
      ints('pads', Array(4).fill((kernel - 1) / 2)),
    ]);
    return batchNorm(y, `${name}.bn`, to);
  };
  const relu = (x) => emit('Relu', [x], `${x}/relu`);

  let x = relu(conv('image', 'stem', { from: 3, to: stages[0], kernel: 7, stride: 2 }));
  x = emit('MaxPool', [x], 'stem/pool', [
    ints('kernel_shape', [3, 3]),
    ints('strides', [2, 2]),
    ints('pads', [1, 1, 1, 1]),
  ]);
  let from = stages[0];
  for (const [s, to] of stages.entries())
    for (const b of [0, 1]) {
      const name = `layer${s + 1}.${b}`;
      const stride = s > 0 && b === 0 ? 2 : 1;
      const inner = relu(conv(x, `${name}.a`, { from, to, kernel: 3, stride }));
      const outer = conv(inner, `${name}.b`, { from: to, to, kernel: 3 });
      const shortcut =
        stride === 1 ? x : conv(x, `${name}.shortcut`, { from, to, kernel: 1, stride });
      x = relu(emit('Add', [outer, shortcut], `${name}/sum`));
      from = to;
    }
  x = emit('Flatten', [emit('GlobalAveragePool', [x], 'pool')], 'features', [int('axis', 1)]);
  const weight = store('fc.weight', [classes, from], () => gaussian() / Math.sqrt(from));
  emit('Gemm', [x, weight, store('fc.bias', [classes], () => 0)], 'logits', [int('transB', 1)]);

  const value = (name, dims) => ({
    name,
    type: {
      tensorType: {
        elemType: dtypeCode('float32'),
        shape: {
          dim: dims.map((d) => (typeof d === 'string' ? { dimParam: d } : { dimValue: d })),
        },
      },
    },
  });
  const wanted = statistics ? ['logits'] : outputs;
  const graph = {
    name: 'resnet18',
    node,
    initializer,
    valueInfo: [],
    input: [value('image', ['batch', 3, side, side])],
    output: wanted.map((name) => (name === 'logits' ? value(name, ['batch', classes]) : { name })),
  };
  return encodeModel({
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    producerName: 'resect bench',
    graph,
  });
}

/** Writes the model; returns its size in bytes. */
export async function writeResNet18(path) {
  const draw = normal(uniform(3));
  const dims = [noise, 3, side, side];
  const image = {
    dtype: 'float32',
    dims,
    data: Float32Array.from({ length: product(dims) }, draw),
  };
  const statistics = await withSession(network(), { threads: 1 }, (session) =>
    session.run({ image }),
  );
  const bytes = network(statistics);
  writeFileSync(path, bytes);
  return bytes.length;
}
