import { importedOpset, upgradeOpset } from '../../../autodiff/normalize/opset.js';
import { modelError, ResectError } from '../../../errors.js';
import { allGraphs, mainGraph } from '../../../graph/bodies.js';
import { inlineFunctions } from '../../../graph/functions.js';
import { isStandard } from '../../../graph/nodes.js';
import type { Model, ModelProto } from '../../../onnx/index.js';
import { requireOpset } from '../../opset.js';
import type { LabelledModel } from '../models.js';

/** From the one to the next, ops take further types, but for `Attention` at 24. */
const lastRewritten = 21;
const attentionChanged = 24;

/** A model with the opset of the default domain that it imports. */
interface Versioned extends LabelledModel {
  version: number;
}

/**
 * Brings models of different opsets to one, in place: to 17, to 21, or to the newest beyond that.
 * Models of one opset stay as they are. The IR version is the largest.
 * @throws {ResectError} exit 5 when there is no such opset, and when other domains are imported in
 *   different versions
 */
export function alignOpsets(models: readonly LabelledModel[]): void {
  const plain = models.map(({ model, label }) => ({ proto: inlineFunctions(model.proto), label }));
  checkOtherDomains(plain);
  const versioned = models.flatMap(({ model, label }, i): Versioned[] => {
    // Without ops of the default domain it fits with any.
    const version = importedOpset(plain[i].proto);
    return version === undefined ? [] : [{ model, label, version }];
  });
  const versions = versioned.map(({ version }) => version);
  if (new Set(versions).size <= 1) return;
  const newest = Math.max(...versions);
  if (newest >= attentionChanged) refuseAttention(versioned);
  const target = newest <= 17 ? 17 : Math.max(newest, lastRewritten);
  for (const one of versioned) raise(one, target, versioned);
  const irVersion = Math.max(...models.map(({ model }) => Number(model.proto.irVersion ?? 0)));
  for (const { model } of versioned) model.proto.irVersion = irVersion;
}

function raise({ model, label, version }: Versioned, target: number, all: Versioned[]): void {
  try {
    if (target === 17) Object.assign(model.proto, upgradeOpset(inlineFunctions(model.proto)));
    else requireOpset(model, lastRewritten);
  } catch (error) {
    if (!(error instanceof ResectError)) throw error;
    const { where } = error.detail;
    throw modelError(`A model cannot be brought to opset ${target}, as another needs it.`, {
      where: where ? `${label}: ${where}` : label,
      expected: `one opset (${opsetsText(all)})`,
      got: `opset ${version}`,
      hint: 'Export all models with the same opset.',
      cause: error,
    });
  }
  setImport(model, target);
}

function setImport({ proto }: Model, version: number): void {
  const others = proto.opsetImport.filter(({ domain }) => domain && domain !== 'ai.onnx');
  proto.opsetImport = [{ domain: '', version }, ...others];
}

const opsetsText = (all: readonly Versioned[]): string =>
  all.map(({ label, version }) => `${label}: ${version}`).join(', ');

function refuseAttention(all: readonly Versioned[]): void {
  if (all.every(({ version }) => version >= attentionChanged)) return;
  for (const { model, label } of all) {
    for (const { node } of allGraphs(mainGraph(inlineFunctions(model.proto)))) {
      const found = node.find((n) => isStandard(n) && n.opType === 'Attention');
      if (!found) continue;
      throw modelError('The models have opsets between which Attention changed.', {
        where: `${label}: node ${found.name || found.output[0]} (Attention)`,
        expected: `all below opset ${attentionChanged}, or all from it on`,
        got: opsetsText(all),
        hint: 'Convert the models to the same opset, or export them with it.',
      });
    }
  }
}

/** Nothing is known of what changed between versions of domains that are not the standard's. */
function checkOtherDomains(models: readonly { proto: ModelProto; label: string }[]): void {
  const used = new Set(
    models.flatMap(({ proto }) =>
      [...allGraphs(mainGraph(proto))].flatMap(({ node }) => node.map(({ domain = '' }) => domain)),
    ),
  );
  const known = new Map<string, { version: number; label: string }>();
  for (const { proto, label } of models)
    for (const { domain = '', version = 1 } of proto.opsetImport) {
      if (!domain || domain === 'ai.onnx' || !used.has(domain)) continue;
      const before = known.get(domain) ?? { version, label };
      known.set(domain, before);
      if (before.version === version) continue;
      throw modelError('The models import a domain in different versions.', {
        where: `domain ${domain}`,
        expected: `version ${before.version} as in ${before.label}`,
        got: `version ${version} in ${label}`,
        hint: 'Export all models with the same tools and versions.',
      });
    }
}
