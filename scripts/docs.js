// Writes what docs say of each method from the method itself: parameters, references, JSON Schema.
// `node scripts/docs.js --check` fails when the written pages are not up to date.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { methods } from '../dist/src/methods/registry.js';

const docs = fileURLToPath(new URL('../docs/', import.meta.url));
const check = process.argv.includes('--check');
const begin = '<!-- made by scripts/docs.js: change the method, not this part -->';
const end = '<!-- end of the made part -->';

const flag = (name) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;

function parameterTable(schema) {
  const rows = Object.entries(schema.properties).map(([name, p]) => {
    const values = p.anyOf
      ? [...new Set(p.anyOf.map((v) => (v.const ? `\`${v.const}\`` : v.type)))].join(', ')
      : p.enum
        ? p.enum.map((v) => `\`${v}\``).join(', ')
        : p.type === 'array'
          ? 'repeatable'
          : p.type;
    const fallback = p.default === undefined || p.type === 'array' ? '' : `\`${p.default}\``;
    return `| \`${flag(name)}\` | ${values} | ${fallback} | ${p.description} |`;
  });
  return ['| flag | values | default | meaning |', '|---|---|---|---|', ...rows].join('\n');
}

function write(file, text) {
  const current = (() => {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return '';
    }
  })();
  if (current === text) return;
  if (check) {
    console.error(`${file} is not up to date: run npm run docs`);
    process.exitCode = 1;
  } else {
    writeFileSync(file, text);
  }
}

for (const method of Object.values(methods)) {
  const schema = z.toJSONSchema(method.parameters, { io: 'input' });
  write(`${docs}schemas/${method.name}.json`, `${JSON.stringify(schema, null, 2)}\n`);
  const page = `${docs}methods/${method.name}.md`;
  const text = readFileSync(page, 'utf8');
  const made = [
    begin,
    '',
    parameterTable(schema),
    '',
    ...method.references.map(
      (r) => `- ${r.title}, [arXiv ${r.arxiv}](https://arxiv.org/abs/${r.arxiv})`,
    ),
    '',
    end,
  ].join('\n');
  write(
    page,
    text.slice(0, text.indexOf(begin)) + made + text.slice(text.indexOf(end) + end.length),
  );
}
