import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { openNpz } from '../../src/data/npz.js';
import { inRepository } from './cli.js';
import { npy, npz } from './npz.js';

const card = (file: string) => `file: ${file}
task: classification
inputs:
  input: { array: input, scale: 0.00392156862745098 }
labels: label
`;

/** What the small golden models were trained and tested on, every fifth example of it, as files. */
export async function writeForgettingData(folder: string) {
  const data = inRepository('fixtures/golden/ssd/data');
  const write = async (name: string) => {
    const file = await openNpz(join(data, `${name}.npz`));
    const input = await file.column('input');
    const label = await (await file.column('label')).numbers();
    const rows = Array.from({ length: Math.floor(input.length / 5) }, (_, i) => 5 * i);
    const { dims } = await input.item(0);
    const pixels = await Promise.all(rows.map(async (i) => (await input.item(i)).data));
    const bytes = Buffer.concat(pixels.map((item) => Uint8Array.from(item as Uint8Array)));
    const labels = Uint8Array.from(rows, (i) => label[i]);
    writeFileSync(
      join(folder, `${name}.npz`),
      npz({
        input: npy('|u1', [rows.length, ...dims], bytes),
        label: npy('|u1', [rows.length], labels),
      }),
    );
    const path = join(folder, `${name}.yaml`);
    writeFileSync(path, card(`${name}.npz`));
    return path;
  };
  return { train: await write('train'), test: await write('test') };
}
