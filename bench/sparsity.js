// The README's tables: both fixture models, every way to prune, at four patterns.
import { mkdirSync, writeFileSync } from 'node:fs';
import { models, table } from './support/grid.js';

const patterns = [{ sparsity: 0.5 }, { sparsity: 0.6 }, { sparsity: 0.7 }, { nm: '2:4' }];
const tables = [];
for (const model of models)
  tables.push(await table(model, patterns, (text) => console.error(text)));

const text = `${tables.join('\n\n')}\n\nMade by \`node bench/sparsity.js\`: 128 calibration examples, seed 0, default parameters.\n`;
mkdirSync(new URL('results/', import.meta.url), { recursive: true });
writeFileSync(new URL('results/sparsity.md', import.meta.url), text);
console.log(text);
