import type { LinearLayer } from '../graph/linear-layers.js';
import type { LayerReport } from './method.js';

/** A linear layer and what is to become of it. */
export interface Planned {
  layer: LinearLayer;
  report: LayerReport;
}

/** Skips, in place, what shares its weight with a skipped layer: a tensor is treated for all or for none. */
export function skipSharers(planned: readonly Planned[]): void {
  const kept = new Map(
    planned
      .filter(({ report }) => report.status === 'skipped')
      .map(({ layer, report }) => [layer.weight?.view.tensor, report.name]),
  );
  for (const { layer, report } of planned) {
    const mate = layer.weight && kept.get(layer.weight.view.tensor);
    if (report.status === 'skipped' || mate === undefined) continue;
    report.status = 'skipped';
    report.reason = `shares its weight with ${mate}, which is skipped`;
  }
}
