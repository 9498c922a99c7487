import { div, mul, neg, scale, unbroadcast } from '../emit.js';
import { single } from '../rule.js';

/** y = a + b, broadcast: da = Σ g, db = Σ g over the stretched axes. */
export const Add = single((t, g, { node: { input, output }, need }) =>
  input.map((x, i) => (need[i] ? unbroadcast(t, g, t.dims(output[0]), t.dims(x)) : undefined)),
);

/** y = a - b, broadcast. */
export const Sub = single((t, g, { node: { input, output }, need }) => {
  const [a, b] = input;
  const from = t.dims(output[0]);
  return [
    need[0] ? unbroadcast(t, g, from, t.dims(a)) : undefined,
    need[1] ? neg(t, unbroadcast(t, g, from, t.dims(b))) : undefined,
  ];
});

/** y = ab, broadcast: da = g b, db = g a. */
export const Mul = single((t, g, { node: { input, output }, need }) => {
  const [a, b] = input;
  const from = t.dims(output[0]);
  // One product where both factors are the same value: the sum of both gradients.
  if (a === b) return [scale(t, mul(t, g, a), 2, a), undefined];
  return [
    need[0] ? unbroadcast(t, mul(t, g, b), from, t.dims(a)) : undefined,
    need[1] ? unbroadcast(t, mul(t, g, a), from, t.dims(b)) : undefined,
  ];
});

/** y = a / b, broadcast: da = g / b, db = -(g / b) y. */
export const Div = single((t, g, { node: { input, output }, need }) => {
  const [a, b] = input;
  const from = t.dims(output[0]);
  const q = div(t, g, b);
  return [
    need[0] ? unbroadcast(t, q, from, t.dims(a)) : undefined,
    need[1] ? neg(t, unbroadcast(t, mul(t, q, output[0]), from, t.dims(b))) : undefined,
  ];
});
