// npm run demo: a language model and an image classifier, 50 % and 60 % sparse, seven ways.
import { models, table } from './support/grid.js';

const patterns = [{ sparsity: 0.5 }, { sparsity: 0.6 }];
const progress = (text) => process.stderr.isTTY && process.stderr.write(`\r${text.padEnd(79)}\r`);

for (const model of models) console.log(`${await table(model, patterns, progress)}\n`);
console.log('Calibrated on 128 examples, measured on others. No weight was trained.');
console.log('Try it on your own model: npx resect sparsify --help');
