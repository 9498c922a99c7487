import { modelError } from '../../errors.js';
import { allGraphs, mainGraph } from '../../graph/bodies.js';
import { int, string } from '../../graph/build.js';
import {
  attribute,
  floatAttribute,
  intAttribute,
  intsAttribute,
  isStandard,
} from '../../graph/nodes.js';
import type { AttributeProto, ModelProto, NodeProto } from '../../onnx/index.js';
import { type Expansion, type RewriteRule, rewriteNodes } from './rewrite.js';

/** The oldest opset that gradients are written for. */
const target = 17;

/** The oldest opset that ONNX Runtime runs; before it, broadcasting was another. */
const oldest = 7;

/** The IR version of opset 17. */
const targetIr = 8;

/**
 * The model in opset 17 of the default domain; one that is newer stays as it is. Every op whose
 * meaning or form changed since is rewritten, in bodies too
 * (https://github.com/onnx/onnx/blob/main/docs/Changelog.md). Local functions must have been inlined.
 * @throws {ResectError} exit 5 below opset 7, and for what has no equal in opset 17
 */
export function upgradeOpset(model: ModelProto): ModelProto {
  const version = importedOpset(model) ?? target;
  if (version < oldest)
    throw modelError('The opset is too old.', {
      expected: `opset ${oldest} or newer of the default domain`,
      got: `opset ${version}`,
      hint: 'Export the model again, or convert it with onnx.version_converter.',
    });
  const others = model.opsetImport.filter((o) => !isDefault(o.domain));
  const opsetImport = [{ domain: '', version: Math.max(version, target) }, ...others];
  const irVersion = Math.max(Number(model.irVersion ?? 0), targetIr);
  if (version >= target) return { ...model, irVersion, opsetImport };
  const rules = new Map<string, RewriteRule>();
  for (const { ops, until, rule } of changes)
    if (version < until) for (const op of ops) rules.set(op, (x) => rule(x, version));
  return { ...rewriteNodes(model, rules, target), irVersion, opsetImport };
}

/**
 * The opset of the default domain. Where a file imports it twice, the last one counts, as in ONNX
 * Runtime. Undefined when a model does not import it and uses none of its ops.
 */
export function importedOpset(model: ModelProto): number | undefined {
  const imported = model.opsetImport.filter((o) => isDefault(o.domain)).at(-1);
  if (imported) return imported.version ?? 1;
  const used = [...allGraphs(mainGraph(model))].some(({ node }) => node.some(isStandard));
  return used ? 1 : undefined;
}

const isDefault = (domain: string | undefined): boolean => !domain || domain === 'ai.onnx';

/** A change of the standard: `rule` rewrites nodes of opsets before `until`. */
interface Change {
  ops: string[];
  until: number;
  rule: (x: Expansion, version: number) => void;
}

const changes: Change[] = [
  { ops: ['Scan'], until: 9, rule: scan },
  { ops: ['Slice'], until: 10, rule: slice },
  { ops: ['TopK'], until: 10, rule: topK },
  { ops: ['Clip'], until: 11, rule: clip },
  { ops: ['Pad'], until: 11, rule: pad },
  { ops: ['Dropout'], until: 12, rule: dropout },
  { ops: ['Softmax', 'LogSoftmax', 'Hardmax'], until: 13, rule: softmax },
  { ops: ['Squeeze', 'Unsqueeze', 'ReduceSum'], until: 13, rule: (x) => listToInput(x, 'axes') },
  { ops: ['Split'], until: 13, rule: (x) => listToInput(x, 'split') },
  { ops: ['Resize'], until: 13, rule: resize },
  { ops: ['BatchNormalization'], until: 14, rule: batchNormalization },
  { ops: ['RoiAlign'], until: 16, rule: roiAlign },
  // Both left the standard (at 10 and 11); runtimes still take them.
  { ops: ['Upsample'], until: target, rule: upsample },
  { ops: ['Scatter'], until: target, rule: (x) => replace(x, { opType: 'ScatterElements' }) },
];

/** The node with fields replaced; it keeps its name, inputs, outputs and attributes otherwise. */
const replace = (x: Expansion, change: Partial<NodeProto>): void => {
  x.nodes.push({ ...x.node, ...change });
};

const without = (x: Expansion, ...names: string[]): AttributeProto[] =>
  x.node.attribute.filter((a) => !names.includes(a.name ?? ''));

const textAttribute = (x: Expansion, name: string, fallback: string): string => {
  const text = attribute(x.node, name)?.s;
  return text ? Buffer.from(text).toString() : fallback;
};

/** A list that was an attribute and is the second input now; absent stays absent. */
function listToInput(x: Expansion, name: string): void {
  const list = intsAttribute(x.node, name);
  const input = list?.length ? [x.input(0), x.int64(list)] : [x.input(0)];
  replace(x, { input, attribute: without(x, name) });
}

function slice(x: Expansion): void {
  const starts = intsAttribute(x.node, 'starts') ?? [];
  const ends = intsAttribute(x.node, 'ends') ?? [];
  const axes = intsAttribute(x.node, 'axes') ?? starts.map((_, i) => i);
  const input = [x.input(0), x.int64(starts), x.int64(ends), x.int64(axes)];
  replace(x, { input, attribute: [] });
}

function topK(x: Expansion): void {
  const k = x.int64([intAttribute(x.node, 'k', 1)]);
  replace(x, { input: [x.input(0), k], attribute: without(x, 'k') });
}

/** Bounds were attributes, and float32 the only type that ONNX Runtime has kernels for. */
function clip(x: Expansion): void {
  const bound = (name: string) => {
    const value = attribute(x.node, name)?.f;
    return value === undefined ? '' : x.floats([value], []);
  };
  replace(x, { input: [x.input(0), bound('min'), bound('max')], attribute: [] });
}

function pad(x: Expansion): void {
  const pads = x.int64(intsAttribute(x.node, 'pads') ?? []);
  const value = floatAttribute(x.node, 'value', 0);
  const input = [x.input(0), pads, ...(value === 0 ? [] : [x.float(value, x.input(0))])];
  replace(x, { input, attribute: without(x, 'pads', 'value') });
}

/** Without a training mode the ratio had no effect, and the runtime's mask was another than today's. */
function dropout(x: Expansion): void {
  if (x.isRead(1)) x.refuse('its mask is used', 'Export the model again with opset 12 or newer.');
  replace(x, { output: [x.output()], attribute: without(x, 'ratio') });
}

/** Before opset 13 it flattened its input to a matrix at `axis` and worked on the rows. */
function softmax(x: Expansion): void {
  const opType = x.node.opType ?? '';
  const axis = intAttribute(x.node, 'axis', 1);
  const last = [int('axis', -1)];
  const rank = x.rank(x.input(0));
  if (axis === -1 || axis + 1 === rank) {
    replace(x, { attribute: last });
    return;
  }
  const shape = x.add('Shape', [x.input(0)]);
  const rows = x.add(opType, [x.add('Flatten', [x.input(0)], [int('axis', axis)])], last);
  x.add('Reshape', [rows, shape], [], x.output());
}

function batchNormalization(x: Expansion): void {
  // Until opset 13 further outputs, read or not, were what switched training mode on.
  if (x.node.output.slice(1).some(Boolean))
    x.refuse(
      'it is in training mode, and normalises by the statistics of the batch',
      'Export the model in evaluation mode (model.eval() in PyTorch).',
    );
  if (intAttribute(x.node, 'spatial', 1) === 1) {
    replace(x, { output: [x.output()], attribute: without(x, 'spatial') });
    return;
  }
  // Statistics for each element of an example, not for each channel: plain broadcasting.
  const [input, scale, bias, mean, variance] = [0, 1, 2, 3, 4].map((i) => x.input(i));
  const epsilon = x.float(floatAttribute(x.node, 'epsilon', 1e-5), input);
  const deviation = x.add('Sqrt', [x.add('Add', [variance, epsilon])]);
  const centred = x.add('Sub', [input, mean]);
  const scaled = x.add('Mul', [x.add('Div', [centred, deviation]), scale]);
  x.add('Add', [scaled, bias], [], x.output());
}

function roiAlign(x: Expansion): void {
  const mode = string('coordinate_transformation_mode', 'output_half_pixel');
  replace(x, { attribute: [...x.node.attribute, mode] });
}

function upsample(x: Expansion): void {
  const scales = attribute(x.node, 'scales')?.floats;
  asymmetric(x, scales ? x.floats(scales) : x.input(1));
}

/** Opset 10 did as Upsample; 11 knew one mode that 13 spells otherwise. */
function resize(x: Expansion, version: number): void {
  if (version < 11) {
    asymmetric(x, x.input(1));
    return;
  }
  if (textAttribute(x, 'coordinate_transformation_mode', '') !== 'tf_half_pixel_for_nn') return;
  if (textAttribute(x, 'nearest_mode', '') !== 'floor')
    x.refuse(
      'tf_half_pixel_for_nn has an equal for rounding down only',
      'Export the model again with opset 13 or newer.',
    );
  // floor(p) = round half up of (p - 0.5), which is where half_pixel looks.
  const attributes = [
    ...without(x, 'coordinate_transformation_mode', 'nearest_mode'),
    string('coordinate_transformation_mode', 'half_pixel'),
    string('nearest_mode', 'round_prefer_ceil'),
  ];
  replace(x, { attribute: attributes });
}

/** A Resize whose output position p reads p / scale. */
function asymmetric(x: Expansion, scales: string): void {
  const mode = textAttribute(x, 'mode', 'nearest') === 'nearest' ? 'nearest' : 'linear';
  const factors = x.values(scales);
  // The old standard left rounding open; ONNX Runtime rounds up where it samples down.
  const shrinks = factors?.some((f) => f < 1) ?? false;
  if (mode === 'nearest' && shrinks && factors?.some((f) => f > 1))
    x.refuse(
      'it enlarges one axis and shrinks another',
      'Export the model again with opset 13 or newer.',
    );
  replace(x, {
    opType: 'Resize',
    input: [x.input(0), '', scales],
    attribute: [
      string('mode', mode),
      string('coordinate_transformation_mode', 'asymmetric'),
      string('nearest_mode', shrinks ? 'ceil' : 'floor'),
    ],
  });
}

/** Opset 8 had a batch axis and sequence lengths. */
function scan(x: Expansion): void {
  x.refuse(
    'the batched form of opset 8 has no equal in later opsets',
    'Export the model again with opset 9 or newer.',
  );
}
