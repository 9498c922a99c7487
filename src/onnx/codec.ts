import { createRequire } from 'node:module';
import { modelError, ResectError } from '../errors.js';
import { readerClass } from './reader.js';
import { type FieldSpec, type ModelProto, SCHEMA, type TensorProto } from './schema.js';
import { type Piece, type WritableTensor, writerClass } from './writer.js';

export type Protobuf = typeof import('protobufjs/light.js');

interface Codec {
  decode(bytes: Uint8Array): ModelProto;
  encode(proto: ModelProto, writable: WritableTensor): Piece[];
}

let codec: Codec | undefined;

/** Loads protobufjs and builds the types on first use, so that importing this layer costs nothing. */
function loadCodec(): Codec {
  codec ??= buildCodec(createRequire(import.meta.url)('protobufjs/light.js'));
  return codec;
}

/**
 * Decodes a ModelProto. Byte fields are views on `bytes`, strings must be UTF-8, unknown fields are
 * kept. A field with the wrong wire type counts as unknown, as in every protobuf implementation.
 * @throws modelError when the bytes are not well-formed protobuf
 */
export const decodeModel = (bytes: Uint8Array): ModelProto => loadCodec().decode(bytes);

/**
 * Encodes a ModelProto in canonical field order, as pieces to be written one after the other. Large
 * byte fields are passed on by reference.
 * @param writable what to write in place of a tensor; the tensor itself when it returns that
 */
export const encodePieces = (proto: ModelProto, writable: WritableTensor = (t) => t): Piece[] =>
  loadCodec().encode(proto, writable);

function buildCodec(pb: Protobuf): Codec {
  const ModelReader = readerClass(pb);
  const PieceWriter = writerClass(pb);
  const root = pb.Root.fromJSON({ nested: descriptors() });
  for (const [name, fields] of messages())
    root.lookupType(name).ctor = plainConstructor(
      pb,
      fields.filter(([, [, type]]) => type.endsWith('[]')).map(([field]) => field),
    );

  const tensorType = root.lookupType('TensorProto').setup();
  const encodeTensor = tensorType.encode;
  tensorType.encode = (tensor, writer) =>
    encodeTensor.call(
      tensorType,
      writer instanceof PieceWriter ? writer.writable(tensor as TensorProto) : tensor,
      writer,
    );

  const modelType = root.lookupType('ModelProto');
  return {
    decode(bytes) {
      const reader = new ModelReader(bytes);
      try {
        const model: object = modelType.decode(reader);
        if (isModel(model)) return model;
      } catch (cause) {
        if (cause instanceof ResectError) throw cause;
        throw damaged(reader.pos, bytes.length, cause);
      }
      throw new Error('decoding gave something else than a ModelProto');
    },
    encode(proto, writable) {
      const writer = new PieceWriter(writable);
      modelType.encode(proto, writer);
      return writer.pieces();
    },
  };
}

/** Field kinds of ours as protobuf types that have the wire form and that no other field uses. */
const PROTOBUF_TYPE: Record<string, string> = {
  safeInt: 'uint64',
  packed32: 'sfixed32',
  packed64: 'sfixed64',
  packedVarint: 'sint64',
};

function messages() {
  return Object.entries(SCHEMA).map(([name, fields]): [string, [string, FieldSpec][]] => [
    name,
    Object.entries(fields),
  ]);
}

/** The schema in protobufjs' JSON form, as proto2: fields have presence, repeated ones are not packed. */
function descriptors() {
  const describe = ([field, [id, type]]: [string, FieldSpec]) => {
    const kind = type.replace(/\[\]\??$/, '');
    const json = {
      id,
      type: PROTOBUF_TYPE[kind] ?? kind,
      ...(type !== kind && { rule: 'repeated' }),
      ...(kind.startsWith('packed') && { options: { packed: true } }),
    };
    return [field, json];
  };
  return Object.fromEntries(
    messages().map(([name, fields]) => [
      name,
      { edition: 'proto2', fields: Object.fromEntries(fields.map(describe)) },
    ]),
  );
}

/**
 * A constructor for decoded messages that gives plain objects: no defaults on a prototype that make
 * an absent field look present. `$unknowns` is there from the start because protobufjs would define
 * it as not enumerable, and a spread copy of the message would lose it.
 */
function plainConstructor(pb: Protobuf, arrays: string[]) {
  return class extends pb.Message {
    constructor() {
      super();
      Object.setPrototypeOf(this, Object.prototype);
      Object.assign(this, { $unknowns: undefined });
      for (const field of arrays) Object.assign(this, { [field]: [] });
    }
  };
}

function isModel(message: object): message is ModelProto {
  return 'opsetImport' in message;
}

/** What protobufjs says of bad bytes, as an error that a user can act on. */
function damaged(offset: number, length: number, cause: unknown) {
  const reason = String(cause).replace(/^\w*Error: /, '');
  const got = /max depth/.test(reason)
    ? 'graphs nested in graphs more than 100 messages deep'
    : /encoded data was not valid/.test(reason)
      ? 'text that is not UTF-8'
      : /index out of range|invalid length/.test(reason)
        ? 'a field that promises more bytes than there are'
        : reason;
  return modelError('the model is damaged, or not an ONNX model', {
    where: `byte ${offset} of ${length}`,
    expected: 'an ONNX model (protobuf)',
    got,
    hint: 'Download or export the model again.',
    cause,
  });
}
