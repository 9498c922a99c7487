/**
 * The messages of ONNX as TypeScript types and, in `SCHEMA`, as field numbers and wire types.
 * Covers the IR up to version 14 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
 *
 * Decoded messages are plain objects, and plain object literals encode. A repeated field that is
 * required here is always an array after decoding; every other field is absent when the file does
 * not have it, and a present field is written even when it holds the default (`i: 0`).
 */

/**
 * An integer of 64 bits: a number when it is safe, a bigint when it is not (a `Slice` that ends at
 * INT64_MAX). Fields for which no such value makes sense (dims, versions) are plain numbers, and a
 * file that says otherwise is refused.
 */
export type Int64 = number | bigint;

/** Fields that we do not know, in wire form with their tags. They are written after the known ones. */
interface Message {
  $unknowns?: Uint8Array[];
}

export interface ModelProto extends Message {
  irVersion?: number;
  opsetImport: OperatorSetIdProto[];
  producerName?: string;
  producerVersion?: string;
  domain?: string;
  modelVersion?: Int64;
  docString?: string;
  graph?: GraphProto;
  metadataProps?: StringStringEntryProto[];
  trainingInfo?: TrainingInfoProto[];
  functions?: FunctionProto[];
  configuration?: DeviceConfigurationProto[];
}

export interface GraphProto extends Message {
  node: NodeProto[];
  name?: string;
  initializer: TensorProto[];
  sparseInitializer?: SparseTensorProto[];
  docString?: string;
  input: ValueInfoProto[];
  output: ValueInfoProto[];
  valueInfo: ValueInfoProto[];
  quantizationAnnotation?: TensorAnnotation[];
  metadataProps?: StringStringEntryProto[];
}

export interface NodeProto extends Message {
  input: string[];
  output: string[];
  name?: string;
  opType?: string;
  domain?: string;
  overload?: string;
  attribute: AttributeProto[];
  docString?: string;
  metadataProps?: StringStringEntryProto[];
  deviceConfigurations?: NodeDeviceConfigurationProto[];
}

export const AttributeType = {
  undefined: 0,
  float: 1,
  int: 2,
  string: 3,
  tensor: 4,
  graph: 5,
  floats: 6,
  ints: 7,
  strings: 8,
  tensors: 9,
  graphs: 10,
  sparseTensor: 11,
  sparseTensors: 12,
  typeProto: 13,
  typeProtos: 14,
} as const;

export interface AttributeProto extends Message {
  name?: string;
  refAttrName?: string;
  docString?: string;
  /** One of `AttributeType`. Absent in files of IR version 1. */
  type?: number;
  f?: number;
  i?: Int64;
  /** UTF-8 by convention, not by rule: any bytes. */
  s?: Uint8Array;
  t?: TensorProto;
  g?: GraphProto;
  sparseTensor?: SparseTensorProto;
  tp?: TypeProto;
  floats?: number[];
  ints?: Int64[];
  strings?: Uint8Array[];
  tensors?: TensorProto[];
  graphs?: GraphProto[];
  sparseTensors?: SparseTensorProto[];
  typeProtos?: TypeProto[];
}

export interface ValueInfoProto extends Message {
  name?: string;
  type?: TypeProto;
  docString?: string;
  metadataProps?: StringStringEntryProto[];
}

/**
 * The `...Data` fields below hold packed elements in wire form, as one or more pieces: millions of
 * elements cost no objects. `readTensorBytes` is the way to their values.
 */
export interface TensorProto extends Message {
  dims: number[];
  dataType?: number;
  segment?: SegmentProto;
  floatData?: Uint8Array[];
  int32Data?: Uint8Array[];
  stringData?: Uint8Array[];
  int64Data?: Uint8Array[];
  name?: string;
  docString?: string;
  rawData?: Uint8Array;
  externalData?: StringStringEntryProto[];
  /** One of `DataLocation`. */
  dataLocation?: number;
  doubleData?: Uint8Array[];
  uint64Data?: Uint8Array[];
  metadataProps?: StringStringEntryProto[];
}

export const DataLocation = { default: 0, external: 1 } as const;

export interface SegmentProto extends Message {
  begin?: Int64;
  end?: Int64;
}

export interface SparseTensorProto extends Message {
  values?: TensorProto;
  indices?: TensorProto;
  dims: number[];
}

export interface TypeProto extends Message {
  tensorType?: TensorTypeProto;
  sequenceType?: SequenceTypeProto;
  mapType?: MapTypeProto;
  optionalType?: OptionalTypeProto;
  sparseTensorType?: TensorTypeProto;
  opaqueType?: OpaqueTypeProto;
  denotation?: string;
}

export interface TensorTypeProto extends Message {
  elemType?: number;
  /** Absent when the rank is unknown; with an empty `dim` for a scalar. */
  shape?: TensorShapeProto;
}

export interface SequenceTypeProto extends Message {
  elemType?: TypeProto;
}

export interface MapTypeProto extends Message {
  keyType?: number;
  valueType?: TypeProto;
}

export interface OptionalTypeProto extends Message {
  elemType?: TypeProto;
}

export interface OpaqueTypeProto extends Message {
  domain?: string;
  name?: string;
}

export interface TensorShapeProto extends Message {
  dim: DimensionProto[];
}

/** Neither `dimValue` nor `dimParam`: an unknown dimension. */
export interface DimensionProto extends Message {
  dimValue?: number;
  dimParam?: string;
  denotation?: string;
}

export interface FunctionProto extends Message {
  name?: string;
  input: string[];
  output: string[];
  attribute: string[];
  node: NodeProto[];
  docString?: string;
  opsetImport: OperatorSetIdProto[];
  domain?: string;
  attributeProto?: AttributeProto[];
  valueInfo?: ValueInfoProto[];
  overload?: string;
  metadataProps?: StringStringEntryProto[];
}

export interface OperatorSetIdProto extends Message {
  domain?: string;
  version?: number;
}

export interface StringStringEntryProto extends Message {
  key?: string;
  value?: string;
}

export interface TensorAnnotation extends Message {
  tensorName?: string;
  quantParameterTensorNames?: StringStringEntryProto[];
}

export interface TrainingInfoProto extends Message {
  initialization?: GraphProto;
  algorithm?: GraphProto;
  initializationBinding?: StringStringEntryProto[];
  updateBinding?: StringStringEntryProto[];
}

export interface DeviceConfigurationProto extends Message {
  name?: string;
  numDevices?: number;
  device?: string[];
}

export interface NodeDeviceConfigurationProto extends Message {
  configurationId?: string;
  shardingSpec?: ShardingSpecProto[];
  pipelineStage?: number;
}

export interface ShardingSpecProto extends Message {
  tensorName?: string;
  device?: Int64[];
  indexToDeviceGroupMap?: IntIntListEntryProto[];
  shardedDim?: ShardedDimProto[];
}

export interface IntIntListEntryProto extends Message {
  key?: Int64;
  value?: Int64[];
}

export interface ShardedDimProto extends Message {
  axis?: Int64;
  simpleSharding?: SimpleShardedDimProto[];
}

export interface SimpleShardedDimProto extends Message {
  dimValue?: Int64;
  dimParam?: string;
  numShards?: Int64;
}

interface Messages {
  ModelProto: ModelProto;
  GraphProto: GraphProto;
  NodeProto: NodeProto;
  AttributeProto: AttributeProto;
  ValueInfoProto: ValueInfoProto;
  TensorProto: TensorProto;
  SegmentProto: SegmentProto;
  SparseTensorProto: SparseTensorProto;
  TypeProto: TypeProto;
  TensorTypeProto: TensorTypeProto;
  SequenceTypeProto: SequenceTypeProto;
  MapTypeProto: MapTypeProto;
  OptionalTypeProto: OptionalTypeProto;
  OpaqueTypeProto: OpaqueTypeProto;
  TensorShapeProto: TensorShapeProto;
  DimensionProto: DimensionProto;
  FunctionProto: FunctionProto;
  OperatorSetIdProto: OperatorSetIdProto;
  StringStringEntryProto: StringStringEntryProto;
  TensorAnnotation: TensorAnnotation;
  TrainingInfoProto: TrainingInfoProto;
  DeviceConfigurationProto: DeviceConfigurationProto;
  NodeDeviceConfigurationProto: NodeDeviceConfigurationProto;
  ShardingSpecProto: ShardingSpecProto;
  IntIntListEntryProto: IntIntListEntryProto;
  ShardedDimProto: ShardedDimProto;
  SimpleShardedDimProto: SimpleShardedDimProto;
}

export type MessageName = keyof Messages;

/**
 * How a field is stored. `int64` is exact, `safeInt` is an int64 that must be a safe number; the
 * `packed...` kinds stay in wire form: 4-byte, 8-byte and varint elements.
 */
type FieldKind =
  | 'string'
  | 'bytes'
  | 'float'
  | 'int32'
  | 'int64'
  | 'safeInt'
  | 'packed32'
  | 'packed64'
  | 'packedVarint'
  | MessageName;

/** Field number and kind; `[]` repeated and always present, `[]?` repeated and absent when empty. */
export type FieldSpec = readonly [number, `${FieldKind}${'' | '[]' | '[]?'}`];

type FieldsOf<M> = { readonly [K in Exclude<keyof M, '$unknowns'>]-?: FieldSpec };

export const SCHEMA: { readonly [N in MessageName]: FieldsOf<Messages[N]> } = {
  ModelProto: {
    irVersion: [1, 'safeInt'],
    producerName: [2, 'string'],
    producerVersion: [3, 'string'],
    domain: [4, 'string'],
    modelVersion: [5, 'int64'],
    docString: [6, 'string'],
    graph: [7, 'GraphProto'],
    opsetImport: [8, 'OperatorSetIdProto[]'],
    metadataProps: [14, 'StringStringEntryProto[]?'],
    trainingInfo: [20, 'TrainingInfoProto[]?'],
    functions: [25, 'FunctionProto[]?'],
    configuration: [26, 'DeviceConfigurationProto[]?'],
  },
  GraphProto: {
    node: [1, 'NodeProto[]'],
    name: [2, 'string'],
    initializer: [5, 'TensorProto[]'],
    docString: [10, 'string'],
    input: [11, 'ValueInfoProto[]'],
    output: [12, 'ValueInfoProto[]'],
    valueInfo: [13, 'ValueInfoProto[]'],
    quantizationAnnotation: [14, 'TensorAnnotation[]?'],
    sparseInitializer: [15, 'SparseTensorProto[]?'],
    metadataProps: [16, 'StringStringEntryProto[]?'],
  },
  NodeProto: {
    input: [1, 'string[]'],
    output: [2, 'string[]'],
    name: [3, 'string'],
    opType: [4, 'string'],
    attribute: [5, 'AttributeProto[]'],
    docString: [6, 'string'],
    domain: [7, 'string'],
    overload: [8, 'string'],
    metadataProps: [9, 'StringStringEntryProto[]?'],
    deviceConfigurations: [10, 'NodeDeviceConfigurationProto[]?'],
  },
  AttributeProto: {
    name: [1, 'string'],
    f: [2, 'float'],
    i: [3, 'int64'],
    s: [4, 'bytes'],
    t: [5, 'TensorProto'],
    g: [6, 'GraphProto'],
    floats: [7, 'float[]?'],
    ints: [8, 'int64[]?'],
    strings: [9, 'bytes[]?'],
    tensors: [10, 'TensorProto[]?'],
    graphs: [11, 'GraphProto[]?'],
    docString: [13, 'string'],
    tp: [14, 'TypeProto'],
    typeProtos: [15, 'TypeProto[]?'],
    type: [20, 'int32'],
    refAttrName: [21, 'string'],
    sparseTensor: [22, 'SparseTensorProto'],
    sparseTensors: [23, 'SparseTensorProto[]?'],
  },
  ValueInfoProto: {
    name: [1, 'string'],
    type: [2, 'TypeProto'],
    docString: [3, 'string'],
    metadataProps: [4, 'StringStringEntryProto[]?'],
  },
  TensorProto: {
    dims: [1, 'safeInt[]'],
    dataType: [2, 'int32'],
    segment: [3, 'SegmentProto'],
    floatData: [4, 'packed32[]?'],
    int32Data: [5, 'packedVarint[]?'],
    stringData: [6, 'bytes[]?'],
    int64Data: [7, 'packedVarint[]?'],
    name: [8, 'string'],
    rawData: [9, 'bytes'],
    doubleData: [10, 'packed64[]?'],
    uint64Data: [11, 'packedVarint[]?'],
    docString: [12, 'string'],
    externalData: [13, 'StringStringEntryProto[]?'],
    dataLocation: [14, 'int32'],
    metadataProps: [16, 'StringStringEntryProto[]?'],
  },
  SegmentProto: { begin: [1, 'int64'], end: [2, 'int64'] },
  SparseTensorProto: {
    values: [1, 'TensorProto'],
    indices: [2, 'TensorProto'],
    dims: [3, 'safeInt[]'],
  },
  TypeProto: {
    tensorType: [1, 'TensorTypeProto'],
    sequenceType: [4, 'SequenceTypeProto'],
    mapType: [5, 'MapTypeProto'],
    denotation: [6, 'string'],
    opaqueType: [7, 'OpaqueTypeProto'],
    sparseTensorType: [8, 'TensorTypeProto'],
    optionalType: [9, 'OptionalTypeProto'],
  },
  TensorTypeProto: { elemType: [1, 'int32'], shape: [2, 'TensorShapeProto'] },
  SequenceTypeProto: { elemType: [1, 'TypeProto'] },
  MapTypeProto: { keyType: [1, 'int32'], valueType: [2, 'TypeProto'] },
  OptionalTypeProto: { elemType: [1, 'TypeProto'] },
  OpaqueTypeProto: { domain: [1, 'string'], name: [2, 'string'] },
  TensorShapeProto: { dim: [1, 'DimensionProto[]'] },
  DimensionProto: {
    dimValue: [1, 'safeInt'],
    dimParam: [2, 'string'],
    denotation: [3, 'string'],
  },
  FunctionProto: {
    name: [1, 'string'],
    input: [4, 'string[]'],
    output: [5, 'string[]'],
    attribute: [6, 'string[]'],
    node: [7, 'NodeProto[]'],
    docString: [8, 'string'],
    opsetImport: [9, 'OperatorSetIdProto[]'],
    domain: [10, 'string'],
    attributeProto: [11, 'AttributeProto[]?'],
    valueInfo: [12, 'ValueInfoProto[]?'],
    overload: [13, 'string'],
    metadataProps: [14, 'StringStringEntryProto[]?'],
  },
  OperatorSetIdProto: { domain: [1, 'string'], version: [2, 'safeInt'] },
  StringStringEntryProto: { key: [1, 'string'], value: [2, 'string'] },
  TensorAnnotation: {
    tensorName: [1, 'string'],
    quantParameterTensorNames: [2, 'StringStringEntryProto[]?'],
  },
  TrainingInfoProto: {
    initialization: [1, 'GraphProto'],
    algorithm: [2, 'GraphProto'],
    initializationBinding: [3, 'StringStringEntryProto[]?'],
    updateBinding: [4, 'StringStringEntryProto[]?'],
  },
  DeviceConfigurationProto: {
    name: [1, 'string'],
    numDevices: [2, 'int32'],
    device: [3, 'string[]?'],
  },
  NodeDeviceConfigurationProto: {
    configurationId: [1, 'string'],
    shardingSpec: [2, 'ShardingSpecProto[]?'],
    pipelineStage: [3, 'int32'],
  },
  ShardingSpecProto: {
    tensorName: [1, 'string'],
    device: [2, 'int64[]?'],
    indexToDeviceGroupMap: [3, 'IntIntListEntryProto[]?'],
    shardedDim: [4, 'ShardedDimProto[]?'],
  },
  IntIntListEntryProto: { key: [1, 'int64'], value: [2, 'int64[]?'] },
  ShardedDimProto: { axis: [1, 'int64'], simpleSharding: [2, 'SimpleShardedDimProto[]?'] },
  SimpleShardedDimProto: {
    dimValue: [1, 'int64'],
    dimParam: [2, 'string'],
    numShards: [3, 'int64'],
  },
};
