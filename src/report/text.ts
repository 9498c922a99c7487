const width = 80;

/**
 * Lines of at most 80 columns; words longer than that stay whole.
 * @param indent what stands before the first line, and before the others
 */
export function wrap(text: string, indent = { first: '', rest: '  ' }): string {
  const lines: string[] = [];
  let line = indent.first;
  let empty = true;
  for (const word of text.split(/[ \n]+/)) {
    if (!empty && line.length + 1 + word.length > width) {
      lines.push(line);
      line = indent.rest;
      empty = true;
    }
    line += empty ? word : ` ${word}`;
    empty = false;
  }
  return [...lines, line].join('\n');
}

/** Names from files, without the control characters by which they could steer a terminal. */
export const printable = (text: string): string => text.replace(/\p{Cc}+/gu, ' ');
