import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Graph } from '../../src/graph/graph.js';
import { findLinearLayers } from '../../src/graph/linear-layers.js';
import {
  DataLocation,
  type DType,
  decodeFloat32,
  dtypeCode,
  encodeFloat32,
  encodeModel,
  type GraphProto,
  type ModelProto,
  makeTensor,
  type NodeProto,
  parseModel,
  type TensorProto,
  tensorInfo,
} from '../../src/onnx/index.js';
import { inRepository } from './cli.js';
import { graph, ints, node, value, weight } from './protos.js';

/** The fixture that all variants compute the same function as. */
export const original = inRepository('fixtures/resnet8/resnet8.onnx');

/** The original stored in another way that real exporters choose. */
export interface Variant {
  name: string;
  /** Writes the model, with whatever belongs to it, into a folder; returns its path. */
  write: (folder: string) => string;
  /** What storage does to a weight `[rows, ...]` of the original; absent when it is exact. */
  rounds?: (values: Float32Array, rows: number) => Float32Array;
  /** False where activations are rounded too, so that the runtime's results differ in the last bits. */
  sameArithmetic: boolean;
  /** True where the layers stand in a body, which is never cut. */
  inBody?: boolean;
}

/** A model that may be changed at will. */
export const readOriginal = (): ModelProto & { graph: GraphProto } => {
  const { graph: main, ...rest } = parseModel(new Uint8Array(readFileSync(original))).proto;
  if (!main) throw new Error('the fixture has no graph');
  return { ...rest, graph: main };
};

const values = (tensor: TensorProto): Float32Array =>
  decodeFloat32(tensor.rawData ?? new Uint8Array(), tensorInfo(tensor).dtype);

const stored = (
  { name = '', dims }: TensorProto,
  dtype: DType,
  content: Float32Array,
): TensorProto => makeTensor({ name, dtype, shape: dims, bytes: encodeFloat32(content, dtype) });

const bytesOf = (array: Float32Array | Int8Array | Uint8Array) =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

const toHalf = (content: Float32Array) =>
  decodeFloat32(encodeFloat32(content, 'float16'), 'float16');

/** Names of the weights of linear layers, in file order. */
function weightNames(model: ModelProto): string[] {
  const layers = findLinearLayers(new Graph(model));
  return layers.flatMap(({ weight: w }) => w?.view.source.name ?? []);
}

/** Replaces each linear weight by what `change` makes: other initializers, and nodes that put out its name. */
function rewriteWeights(
  change: (tensor: TensorProto, i: number) => { initializer: TensorProto[]; node: NodeProto[] },
): ModelProto {
  const model = readOriginal();
  const { graph: main } = model;
  for (const [i, name] of weightNames(model).entries()) {
    const tensor = main.initializer.find((t) => t.name === name);
    if (!tensor) throw new Error(`no initializer ${name}`);
    const made = change(tensor, i);
    main.initializer = [...main.initializer.filter((t) => t !== tensor), ...made.initializer];
    main.node.unshift(...made.node);
  }
  return model;
}

const renamed = (tensor: TensorProto, suffix: string): TensorProto => ({
  ...tensor,
  name: `${tensor.name}${suffix}`,
});

/** Weights in half precision, each cast where it is used. */
const halfWeights = () =>
  rewriteWeights((tensor) => ({
    initializer: [stored(renamed(tensor, '.half'), 'float16', values(tensor))],
    node: [
      node('Cast', [`${tensor.name}.half`], [tensor.name ?? ''], { to: dtypeCode('float32') }),
    ],
  }));

/** Everything in half precision but the model's input and output. */
function halfModel(): ModelProto {
  const model = readOriginal();
  const { graph: main } = model;
  const [input] = main.input;
  const [output] = main.output;
  main.initializer = main.initializer.map((t) => stored(t, 'float16', values(t)));
  main.valueInfo = [];
  for (const n of main.node) {
    n.input = n.input.map((name) => (name === input.name ? 'half.in' : name));
    n.output = n.output.map((name) => (name === output.name ? 'half.out' : name));
  }
  main.node = [
    node('Cast', [input.name ?? ''], ['half.in'], { to: dtypeCode('float16') }),
    ...main.node,
    node('Cast', ['half.out'], [output.name ?? ''], { to: dtypeCode('float32') }),
  ];
  return model;
}

/** Symmetric 8-bit levels of one channel, or of a whole tensor; uint8 puts zero at 128. */
function quantize(content: Float32Array, zero: number) {
  const largest = content.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
  const scale = Math.fround(largest / 127);
  return { scale, levels: Array.from(content, (v) => Math.round(v / scale) + zero) };
}

const dequantize = (levels: number[], scale: number, zero: number) =>
  levels.map((q) => Math.fround((q - zero) * scale));

const channels = (content: Float32Array, rows: number) =>
  Array.from({ length: rows }, (_, r) =>
    content.subarray((r * content.length) / rows, ((r + 1) * content.length) / rows),
  );

/** int8 levels with a scale for each output channel, read through DequantizeLinear. */
const quantizedPerChannel = () =>
  rewriteWeights((tensor) => {
    const name = tensor.name ?? '';
    const rows = channels(values(tensor), tensor.dims[0]).map((row) => quantize(row, 0));
    const level = Int8Array.from(rows.flatMap(({ levels }) => levels));
    const scales = Float32Array.from(rows, ({ scale }) => scale);
    return {
      initializer: [
        makeTensor({ name: `${name}.q`, dtype: 'int8', shape: tensor.dims, bytes: bytesOf(level) }),
        makeTensor({
          name: `${name}.scale`,
          dtype: 'float32',
          shape: [scales.length],
          bytes: bytesOf(scales),
        }),
        makeTensor({
          name: `${name}.zero`,
          dtype: 'int8',
          shape: [scales.length],
          bytes: new Uint8Array(scales.length),
        }),
      ],
      node: [
        node('DequantizeLinear', [`${name}.q`, `${name}.scale`, `${name}.zero`], [name], {
          axis: 0,
        }),
      ],
    };
  });

/** uint8 levels around 128 with one scale for the tensor. */
const quantizedPerTensor = () =>
  rewriteWeights((tensor) => {
    const name = tensor.name ?? '';
    const { scale, levels } = quantize(values(tensor), 128);
    return {
      initializer: [
        makeTensor({
          name: `${name}.q`,
          dtype: 'uint8',
          shape: tensor.dims,
          bytes: Uint8Array.from(levels),
        }),
        makeTensor({
          name: `${name}.scale`,
          dtype: 'float32',
          shape: [],
          bytes: bytesOf(Float32Array.of(scale)),
        }),
        makeTensor({ name: `${name}.zero`, dtype: 'uint8', shape: [], bytes: Uint8Array.of(128) }),
      ],
      node: [node('DequantizeLinear', [`${name}.q`, `${name}.scale`, `${name}.zero`], [name])],
    };
  });

/** Every second weight transposed, the others flat; read through Transpose, Reshape, Unsqueeze, Identity. */
const disguised = () =>
  rewriteWeights((tensor, i) => {
    const name = tensor.name ?? '';
    const raw = `${name}.raw`;
    const shape = ints(`${name}.shape`, ...tensor.dims);
    switch (i % 4) {
      case 0:
        return {
          initializer: [reversed(tensor, raw)],
          node: [
            node('Transpose', [raw], [`${name}.turned`]),
            node('Identity', [`${name}.turned`], [name]),
          ],
        };
      case 1:
        return {
          initializer: [
            { ...tensor, name: raw, dims: [tensor.dims.reduce((a, b) => a * b, 1)] },
            shape,
          ],
          node: [node('Reshape', [raw, shape.name ?? ''], [name])],
        };
      case 2:
        return {
          initializer: [
            { ...tensor, name: raw, dims: [1, ...tensor.dims] },
            ints(`${name}.axes`, 0),
          ],
          node: [node('Squeeze', [raw, `${name}.axes`], [name])],
        };
      default:
        return {
          initializer: [{ ...tensor, name: raw }],
          node: [
            node('Identity', [raw], [`${name}.same`]),
            node('Cast', [`${name}.same`], [name], { to: dtypeCode('float32') }),
          ],
        };
    }
  });

/** The tensor with its axes in the opposite order. */
function reversed(tensor: TensorProto, name: string): TensorProto {
  const { dims } = tensor;
  const from = values(tensor);
  const to = new Float32Array(from.length);
  const place = new Array<number>(dims.length).fill(0);
  for (const v of from) {
    let at = 0;
    for (let axis = dims.length - 1; axis >= 0; axis--) at = at * dims[axis] + place[axis];
    to[at] = v;
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      if (++place[axis] < dims[axis]) break;
      place[axis] = 0;
    }
  }
  return makeTensor({ name, dtype: 'float32', shape: [...dims].reverse(), bytes: bytesOf(to) });
}

/** Constants instead of initializers, as Paddle and spox export. */
function asConstants(): ModelProto {
  const model = readOriginal();
  model.graph.node.unshift(...constants(model.graph.initializer));
  model.graph.initializer = [];
  return model;
}

const constants = (tensors: TensorProto[]): NodeProto[] =>
  tensors.map((t) => node('Constant', [], [t.name ?? ''], { value: { ...t, name: '' } }));

/** Values in `float_data` instead of `raw_data`. */
function typedFields(): ModelProto {
  const model = readOriginal();
  model.graph.initializer = model.graph.initializer.map(({ rawData, ...tensor }) => ({
    ...tensor,
    floatData: rawData && [rawData],
  }));
  return model;
}

/** Every initializer an input, too, as IR 3 demanded. */
function overridable(): ModelProto {
  const model = readOriginal();
  const inputs = model.graph.initializer.map((t) => value(t.name ?? '', t.dims));
  model.graph.input.push(...inputs);
  return { ...model, irVersion: 3 };
}

const functionDomain = 'test.networks';

/** The network as the body of a local function; weights inside it, or among its inputs. */
function inFunction(weightsInside: boolean): ModelProto {
  const model = readOriginal();
  const { graph: main } = model;
  const names = main.initializer.map((t) => t.name ?? '');
  const [input, output] = [main.input[0].name ?? '', main.output[0].name ?? ''];
  return {
    ...model,
    irVersion: 8,
    opsetImport: [...model.opsetImport, { domain: functionDomain, version: 1 }],
    functions: [
      {
        domain: functionDomain,
        name: 'ResNet8',
        input: weightsInside ? ['x'] : ['x', ...names],
        output: ['y'],
        attribute: [],
        opsetImport: model.opsetImport,
        node: [
          ...(weightsInside ? constants(main.initializer) : []),
          ...main.node.map((n) => ({
            ...n,
            input: n.input.map((name) => (name === input ? 'x' : name)),
            output: n.output.map((name) => (name === output ? 'y' : name)),
          })),
        ],
      },
    ],
    graph: {
      ...main,
      valueInfo: [],
      initializer: weightsInside ? [] : main.initializer,
      node: [
        node(
          'ResNet8',
          weightsInside ? [input] : [input, ...names],
          [output],
          {},
          { domain: functionDomain, name: 'call' },
        ),
      ],
    },
  };
}

/** The network in a branch that is always taken, beside one that never is; weights inside or captured. */
function inBranch(weightsInside: boolean): ModelProto {
  const model = readOriginal();
  const { graph: main } = model;
  const [image] = main.input;
  const [logits] = main.output;
  const thenBranch = graph({
    name: 'network',
    node: main.node.map((n) => ({
      ...n,
      output: n.output.map((name) => (name === logits.name ? 'taken' : name)),
    })),
    initializer: weightsInside ? main.initializer : [],
    output: [{ ...logits, name: 'taken' }],
  });
  const elseBranch = graph({
    name: 'linear',
    node: [
      node('Flatten', [image.name ?? ''], ['flat'], { axis: 1 }),
      node('MatMul', ['flat', 'never.weight'], ['never'], {}, { name: 'never' }),
    ],
    initializer: [weight('never.weight', [28 * 28, 10])],
    output: [{ ...logits, name: 'never' }],
  });
  return {
    ...model,
    graph: {
      ...main,
      valueInfo: [],
      initializer: [...(weightsInside ? [] : main.initializer), ints('zero', 0), ints('first', 0)],
      node: [
        node('Shape', [image.name ?? ''], ['shape']),
        node('Gather', ['shape', 'first'], ['batch'], { axis: 0 }),
        node('Greater', ['batch', 'zero'], ['condition']),
        node('If', ['condition'], [logits.name ?? ''], {
          then_branch: thenBranch,
          else_branch: elseBranch,
        }),
      ],
    },
  };
}

const single =
  (make: () => ModelProto) =>
  (folder: string): string => {
    const path = join(folder, 'model.onnx');
    writeFileSync(path, encodeModel(make()));
    return path;
  };

/** Weights in other files: all in one, at odd offsets, or each in its own. */
const external = (many: boolean) => (folder: string) => {
  const model = readOriginal();
  const pieces: Uint8Array[] = [];
  let end = 0;
  model.graph.initializer = model.graph.initializer.map(({ rawData, ...tensor }, i) => {
    if (!rawData) return tensor;
    const location = many ? join('weights', `${i}.bin`) : 'weights.bin';
    const offset = many ? 0 : end + 3;
    if (many) {
      mkdirSync(join(folder, 'weights'), { recursive: true });
      writeFileSync(join(folder, location), rawData);
    } else {
      pieces.push(new Uint8Array(3), rawData);
      end += 3 + rawData.length;
    }
    return {
      ...tensor,
      dataLocation: DataLocation.external,
      externalData: Object.entries({ location, offset, length: rawData.length }).map(
        ([key, entry]) => ({ key, value: String(entry) }),
      ),
    };
  });
  if (!many) writeFileSync(join(folder, 'weights.bin'), Buffer.concat(pieces));
  const path = join(folder, 'model.onnx');
  writeFileSync(path, encodeModel(model));
  return path;
};

export const variants: Variant[] = [
  { name: 'half weights', write: single(halfWeights), rounds: toHalf, sameArithmetic: true },
  { name: 'half model', write: single(halfModel), rounds: toHalf, sameArithmetic: false },
  {
    name: 'int8 per channel',
    write: single(quantizedPerChannel),
    rounds: (content, rows) =>
      Float32Array.from(
        channels(content, rows).flatMap((row) => {
          const { levels, scale } = quantize(row, 0);
          return dequantize(levels, scale, 0);
        }),
      ),
    sameArithmetic: true,
  },
  {
    name: 'uint8 per tensor',
    write: single(quantizedPerTensor),
    rounds: (content) => {
      const { levels, scale } = quantize(content, 128);
      return Float32Array.from(dequantize(levels, scale, 128));
    },
    sameArithmetic: true,
  },
  { name: 'external in one file', write: external(false), sameArithmetic: true },
  { name: 'external in many files', write: external(true), sameArithmetic: true },
  { name: 'typed fields', write: single(typedFields), sameArithmetic: true },
  { name: 'initializers as inputs', write: single(overridable), sameArithmetic: true },
  { name: 'Constant nodes', write: single(asConstants), sameArithmetic: true },
  { name: 'disguised weights', write: single(disguised), sameArithmetic: true },
  { name: 'function with constants', write: single(() => inFunction(true)), sameArithmetic: true },
  {
    name: 'function with weight inputs',
    write: single(() => inFunction(false)),
    sameArithmetic: true,
  },
  {
    name: 'branch with weights',
    write: single(() => inBranch(true)),
    sameArithmetic: true,
    inBody: true,
  },
  {
    name: 'branch that captures weights',
    write: single(() => inBranch(false)),
    sameArithmetic: true,
    inBody: true,
  },
];

/** The original with its linear weights rounded as a variant stores them, in float32. */
export function reference({ rounds }: Pick<Variant, 'rounds'>): ModelProto {
  if (!rounds) return readOriginal();
  return rewriteWeights((tensor) => ({
    initializer: [stored(tensor, 'float32', rounds(values(tensor), tensor.dims[0]))],
    node: [],
  }));
}
