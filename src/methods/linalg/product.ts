/** Rows of a row-major float64 matrix: row i begins at start + i·stride. */
export interface Rows {
  data: Float64Array;
  start: number;
  stride: number;
}

/**
 * out[i, j] += Σ_k a[i, k]·b[j, k] for i < rows, j < cols, k < depth: A·Bᵀ with both operands
 * contiguous along k. Sixteen sums are kept in registers; callers cut `b` into tiles that fit the
 * cache. `out` must not overlap `a` or `b`.
 */
export function addProduct(
  out: Rows,
  a: Rows,
  b: Rows,
  rows: number,
  cols: number,
  depth: number,
): void {
  const wholeRows = rows - (rows % 4);
  const wholeCols = cols - (cols % 4);
  for (let i = 0; i < wholeRows; i += 4) {
    for (let j = 0; j < wholeCols; j += 4) addTile(out, a, b, i, j, depth);
    for (let j = wholeCols; j < cols; j++) {
      for (let r = i; r < i + 4; r++) addDot(out, a, b, r, j, depth);
    }
  }
  for (let i = wholeRows; i < rows; i++) {
    for (let j = 0; j < cols; j++) addDot(out, a, b, i, j, depth);
  }
}

/**
 * The 4x4 tile of `addProduct` at (i, j). Without `| 0` one caller whose places are known to be
 * integers only at run time (quotients) makes V8 take all places for float64, at half the speed.
 */
function addTile(out: Rows, a: Rows, b: Rows, i: number, j: number, depth: number): void {
  const x = a.data;
  const y = b.data;
  const x0 = (a.start + i * a.stride) | 0;
  const x1 = (x0 + a.stride) | 0;
  const x2 = (x1 + a.stride) | 0;
  const x3 = (x2 + a.stride) | 0;
  const y0 = (b.start + j * b.stride) | 0;
  const y1 = (y0 + b.stride) | 0;
  const y2 = (y1 + b.stride) | 0;
  const y3 = (y2 + b.stride) | 0;
  let s00 = 0;
  let s01 = 0;
  let s02 = 0;
  let s03 = 0;
  let s10 = 0;
  let s11 = 0;
  let s12 = 0;
  let s13 = 0;
  let s20 = 0;
  let s21 = 0;
  let s22 = 0;
  let s23 = 0;
  let s30 = 0;
  let s31 = 0;
  let s32 = 0;
  let s33 = 0;
  for (let k = 0; k < depth; k++) {
    const v0 = y[y0 + k];
    const v1 = y[y1 + k];
    const v2 = y[y2 + k];
    const v3 = y[y3 + k];
    const u0 = x[x0 + k];
    s00 += u0 * v0;
    s01 += u0 * v1;
    s02 += u0 * v2;
    s03 += u0 * v3;
    const u1 = x[x1 + k];
    s10 += u1 * v0;
    s11 += u1 * v1;
    s12 += u1 * v2;
    s13 += u1 * v3;
    const u2 = x[x2 + k];
    s20 += u2 * v0;
    s21 += u2 * v1;
    s22 += u2 * v2;
    s23 += u2 * v3;
    const u3 = x[x3 + k];
    s30 += u3 * v0;
    s31 += u3 * v1;
    s32 += u3 * v2;
    s33 += u3 * v3;
  }
  const z = out.data;
  const z0 = (out.start + i * out.stride + j) | 0;
  const z1 = (z0 + out.stride) | 0;
  const z2 = (z1 + out.stride) | 0;
  const z3 = (z2 + out.stride) | 0;
  z[z0] += s00;
  z[z0 + 1] += s01;
  z[z0 + 2] += s02;
  z[z0 + 3] += s03;
  z[z1] += s10;
  z[z1 + 1] += s11;
  z[z1 + 2] += s12;
  z[z1 + 3] += s13;
  z[z2] += s20;
  z[z2 + 1] += s21;
  z[z2 + 2] += s22;
  z[z2 + 3] += s23;
  z[z3] += s30;
  z[z3 + 1] += s31;
  z[z3 + 2] += s32;
  z[z3 + 3] += s33;
}

function addDot(out: Rows, a: Rows, b: Rows, i: number, j: number, depth: number): void {
  const x0 = a.start + i * a.stride;
  const y0 = b.start + j * b.stride;
  let sum = 0;
  for (let k = 0; k < depth; k++) sum += a.data[x0 + k] * b.data[y0 + k];
  out.data[out.start + i * out.stride + j] += sum;
}
