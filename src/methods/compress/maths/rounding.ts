/** Adding it leaves no fraction bits, and IEEE 754 rounds to even: exact up to 2^51. */
const INTEGERS_ONLY = 1.5 * 2 ** 52;

/** Rounds halves to even, as ONNX does and `Math.round` does not. For |x| < 2^51. */
export const roundHalfEven = (x: number): number => x + INTEGERS_ONLY - INTEGERS_ONLY;
