import { node } from '../../support/protos.js';
import type { GradientCase } from '../check-gradient.js';

const equations: [string, ...number[][]][] = [
  ['ij,jk->ik', [2, 3], [3, 4]],
  ['ij,jk', [2, 3], [3, 4]],
  ['bhid,bhjd->bhij', [2, 2, 3, 4], [2, 2, 2, 4]],
  ['bhij,bhjd->bihd', [2, 2, 3, 2], [2, 2, 2, 4]],
  ['ij->ji', [2, 3]],
  ['ij->', [2, 3]],
  ['ij->j', [2, 3]],
  ['i,i->', [3], [3]],
  ['i,j->ij', [2], [3]],
  ['i,j->j', [2], [3]],
  ['ij,j,jk->k', [2, 3], [3], [3, 2]],
  ['...ij,jk->...ik', [2, 2, 3, 2], [2, 3]],
  ['...ij,...jk->...ik', [2, 1, 3, 2], [1, 3, 2, 3]],
  ['i...,i...->...', [3, 2], [3, 2]],
  ['b...d,d->b...', [2, 3, 4], [4]],
  ['...,...', [2, 1], [1, 3]],
  [',i->i', [], [3]],
  [' i j , j k -> k i ', [2, 3], [3, 4]],
  // An axis of 1 meets one of 3.
  ['ij,ij->ij', [2, 1], [2, 3]],
  ['ij,ij->i', [2, 1], [2, 3]],
  ['ij,ij->j', [1, 3], [1, 1]],
  // The diagonal of the other operand.
  ['ii,ij->j', [2, 2], [2, 3]],
];

const names = 'abc';

export const cases: GradientCase[] = equations.map(([equation, ...shapes]) => ({
  name: `Einsum ${equation} [${shapes.join('] [')}]`,
  nodes: [node('Einsum', [...names.slice(0, shapes.length)], ['y'], { equation })],
  inputs: Object.fromEntries(
    shapes.map((dims, i) => [
      names[i],
      { dims, constant: /(.)\1/.test(equation.split(',')[i]) && !equation.includes('.') },
    ]),
  ),
}));
