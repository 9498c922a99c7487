/** Numbers as people read them: at most four significant digits, no exponent where it can be helped. */
export function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  if (Number.isInteger(value)) return String(value);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

export const percent = (fraction: number): string => `${(100 * fraction).toFixed(2)} %`;

export const bytes = (value: number): string => scaled(value, ['B', 'KB', 'MB', 'GB', 'TB']);

export const count = (value: number): string => scaled(value, ['', 'k', 'M', 'G', 'T']).trimEnd();

/** Three digits of a count, and its unit, each a thousand times the one before. */
function scaled(value: number, units: readonly string[]): string {
  let unit = 0;
  let size = value;
  while (size >= 1000 && unit < units.length - 1) {
    size /= 1000;
    unit++;
  }
  return `${unit === 0 ? size : size.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2)} ${units[unit]}`;
}

export function duration(seconds: number): string {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes} min ${Math.round(seconds % 60)} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
