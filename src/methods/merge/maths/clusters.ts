/**
 * Centres of `k` clusters of numbers, rising: k-means from the middles of k equal quantiles, until nothing
 * changes. Fewer centres only where there are fewer distinct values.
 */
export function kMeans(values: Float64Array, k: number): number[] {
  const sorted = Float64Array.from(values).sort();
  const n = sorted.length;
  const wanted = Math.min(k, new Set(sorted).size);
  let centres = distinct(
    Array.from({ length: Math.min(k, n) }, (_, i) => sorted[Math.floor(((i + 0.5) * n) / k)]),
  );
  // On a line clusters are intervals, and each pass can only lower the spread: it ends.
  for (let pass = 0; pass < 1000; pass++) {
    const sums = centres.map(() => 0);
    const counts = centres.map(() => 0);
    let at = 0;
    let outlier = sorted[0];
    let farthest = 0;
    for (const value of sorted) {
      while (
        at < centres.length - 1 &&
        Math.abs(centres[at + 1] - value) < Math.abs(centres[at] - value)
      )
        at++;
      sums[at] += value;
      counts[at]++;
      const distance = Math.abs(centres[at] - value);
      if (distance > farthest) [farthest, outlier] = [distance, value];
    }
    const moved = distinct(sums.flatMap((sum, i) => (counts[i] > 0 ? [sum / counts[i]] : [])));
    const settled = moved.length === centres.length && moved.every((c, i) => c === centres[i]);
    if (settled && centres.length >= wanted) break;
    // Quantiles of many equal values are one value, and clusters may run empty on the way.
    centres = settled ? distinct([...centres, outlier]) : moved;
  }
  return centres;
}

const distinct = (values: number[]): number[] => [...new Set(values)].sort((a, b) => a - b);

/** Shares of 0 and 1 have no density in a Beta distribution. */
const edge = 1e-4;

/**
 * Means, rising, of a mixture of `k` Beta distributions fitted to numbers in [0, 1] by expectation
 * maximisation, with moments in place of likelihoods in the second step, as DaWin does.
 */
export function betaMixture(values: Float64Array, k: number): number[] {
  const x = values.map((v) => Math.min(1 - edge, Math.max(edge, v)));
  const start = kMeans(x, k);
  let parts = start.map((mean) => ({ weight: 1 / start.length, ...shape(mean, 0.01) }));
  const memberships = parts.map(() => new Float64Array(x.length));
  for (let pass = 0; pass < 200; pass++) {
    for (let n = 0; n < x.length; n++) {
      const logs = parts.map(
        ({ weight, a, b, logBeta }) =>
          Math.log(weight) + (a - 1) * Math.log(x[n]) + (b - 1) * Math.log(1 - x[n]) - logBeta,
      );
      const top = Math.max(...logs);
      const total = logs.reduce((sum, l) => sum + Math.exp(l - top), 0);
      for (const [i, l] of logs.entries()) memberships[i][n] = Math.exp(l - top) / total;
    }
    const next = memberships.map((own) => momentsOf(x, own));
    const change = next.reduce((sum, { mean }, i) => sum + Math.abs(mean - parts[i].mean), 0);
    parts = next.map(({ mean, variance, total }) => ({
      weight: Math.max(total / x.length, 1e-12),
      ...shape(mean, variance),
    }));
    if (change < 1e-9) break;
  }
  return distinct(parts.map(({ mean }) => mean));
}

function momentsOf(x: Float64Array, weights: Float64Array) {
  let total = 0;
  let sum = 0;
  for (let n = 0; n < x.length; n++) {
    total += weights[n];
    sum += weights[n] * x[n];
  }
  const mean = sum / total;
  let squares = 0;
  for (let n = 0; n < x.length; n++) squares += weights[n] * (x[n] - mean) ** 2;
  return { total, mean, variance: squares / total };
}

/** The Beta distribution of a mean and a variance. */
function shape(mean: number, variance: number) {
  const spread = Math.min(Math.max(variance, 1e-6), 0.99 * mean * (1 - mean));
  const concentration = (mean * (1 - mean)) / spread - 1;
  const a = mean * concentration;
  const b = (1 - mean) * concentration;
  return { mean, a, b, logBeta: logGamma(a) + logGamma(b) - logGamma(a + b) };
}

/** ln Γ(z) for z > 0 (Lanczos, g = 7, nine coefficients). */
function logGamma(z: number): number {
  if (z < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * z)) - logGamma(1 - z);
  const coefficients = [
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
    1.5056327351493116e-7,
  ];
  const x = z - 1;
  const t = x + 7.5;
  const series = coefficients
    .slice(1)
    .reduce((sum, c, i) => sum + c / (x + i + 1), coefficients[0]);
  return 0.5 * Math.log(2 * Math.PI) + (x + 0.5) * Math.log(t) - t + Math.log(series);
}
