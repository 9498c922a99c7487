// An encoder with random weights in the shapes of all-MiniLM-L6-v2 (6 x 384, 30,522 tokens): a model
// for questions of size and speed, where values do not matter.
import { writeFileSync } from 'node:fs';
import { AttributeType, dtypeCode, encodeModel, makeTensor } from '../../dist/src/onnx/index.js';

export const shape = { blocks: 6, width: 384, inner: 1536, heads: 12, vocabulary: 30522 };

/** Writes the model; returns its size in bytes. */
export function writeTransformer(path, { blocks, width, inner, heads, vocabulary } = shape) {
  const nodes = [];
  const initializers = [];
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  const weight = (name, dims, scale) => {
    const values = Float32Array.from(
      { length: dims.reduce((a, b) => a * b, 1) },
      () => random() * scale,
    );
    initializers.push(
      makeTensor({ name, dtype: 'float32', shape: dims, bytes: new Uint8Array(values.buffer) }),
    );
    return name;
  };
  const filled = (name, length, value) => {
    const bytes = new Uint8Array(new Float32Array(length).fill(value).buffer);
    initializers.push(makeTensor({ name, dtype: 'float32', shape: [length], bytes }));
    return name;
  };
  const ints = (name, values) => {
    const bytes = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    initializers.push(makeTensor({ name, dtype: 'int64', shape: [values.length], bytes }));
    return name;
  };
  const emit = (opType, input, output, attribute = []) => {
    nodes.push({ name: output, opType, input, output: [output], attribute });
    return output;
  };
  const intsAttribute = (name, values) => ({ name, type: AttributeType.ints, ints: values });
  const linear = (x, name, from, to) =>
    emit(
      'Add',
      [
        emit(
          'MatMul',
          [x, weight(`${name}.weight`, [from, to], 3.5 / Math.sqrt(from))],
          `${name}/MatMul`,
        ),
        weight(`${name}.bias`, [to], 0.1),
      ],
      `${name}/Add`,
    );
  const norm = (x, name) =>
    emit(
      'LayerNormalization',
      [x, filled(`${name}.weight`, width, 1), filled(`${name}.bias`, width, 0)],
      name,
      [{ name: 'axis', type: AttributeType.int, i: -1 }],
    );

  const split = ints('split', [0, 0, heads, width / heads]);
  const join = ints('join', [0, 0, width]);
  let x = emit('Gather', [weight('embedding', [vocabulary, width], 1), 'input_ids'], 'embed');
  for (let b = 0; b < blocks; b++) {
    const at = `block${b}`;
    const n = norm(x, `${at}/ln1`);
    const head = (name, perm) =>
      emit(
        'Transpose',
        [emit('Reshape', [linear(n, `${at}/${name}`, width, width), split], `${at}/${name}/split`)],
        `${at}/${name}/heads`,
        [intsAttribute('perm', perm)],
      );
    const scores = emit(
      'MatMul',
      [head('q', [0, 2, 1, 3]), head('k', [0, 2, 3, 1])],
      `${at}/scores`,
    );
    const weights = emit(
      'Softmax',
      [emit('Mul', [scores, filled(`${at}/scale`, 1, Math.sqrt(heads / width))], `${at}/scaled`)],
      `${at}/softmax`,
      [{ name: 'axis', type: AttributeType.int, i: -1 }],
    );
    const mixed = emit(
      'Transpose',
      [emit('MatMul', [weights, head('v', [0, 2, 1, 3])], `${at}/mixed`)],
      `${at}/merged`,
      [intsAttribute('perm', [0, 2, 1, 3])],
    );
    x = emit(
      'Add',
      [x, linear(emit('Reshape', [mixed, join], `${at}/joined`), `${at}/out`, width, width)],
      `${at}/residual1`,
    );
    const up = linear(norm(x, `${at}/ln2`), `${at}/up`, width, inner);
    x = emit(
      'Add',
      [x, linear(emit('Relu', [up], `${at}/relu`), `${at}/down`, inner, width)],
      `${at}/residual2`,
    );
  }
  norm(x, 'hidden');
  const bytes = encodeModel({
    irVersion: 8,
    opsetImport: [{ domain: '', version: 17 }],
    producerName: 'resect bench',
    graph: {
      name: 'transformer',
      node: nodes,
      initializer: initializers,
      valueInfo: [],
      input: [
        {
          name: 'input_ids',
          type: {
            tensorType: {
              elemType: dtypeCode('int64'),
              shape: { dim: [{ dimParam: 'batch' }, { dimParam: 'sequence' }] },
            },
          },
        },
      ],
      output: [{ name: 'hidden', type: { tensorType: { elemType: dtypeCode('float32') } } }],
    },
  });
  writeFileSync(path, bytes);
  return bytes.length;
}
