import fc from 'fast-check';
import { alphaCandidates, chooseAlpha } from '../../../src/methods/unlearn/ssd/alpha-grid.js';

describe('candidates', () => {
  test('begin with that of adaptive SSD and stop below the largest ratio', () => {
    expect(alphaCandidates(5.8, 10)).toEqual([5.8, 1.5, 2, 3, 5, 7]);
    expect(alphaCandidates(3, 4)).toEqual([3, 1.5, 2]);
    expect(alphaCandidates(1.1, 1.2)).toEqual([1.1]);
  });

  test('are none when nothing can be selected', () => {
    expect(alphaCandidates(0, 0)).toEqual([]);
    expect(alphaCandidates(Number.NaN, Number.NaN)).toEqual([]);
  });

  test('end at 1000', () => {
    const grid = alphaCandidates(1, 1e30).slice(1);
    expect(grid.at(-1)).toBe(1000);
    for (const [i, alpha] of grid.slice(1).entries()) {
      expect(alpha / grid[i]).toBeGreaterThan(1.3);
      expect(alpha / grid[i]).toBeLessThan(1.7);
    }
  });
});

const outcome = (alpha: number, forgetAccuracy: number, retainAccuracy: number) => ({
  alpha,
  forgetAccuracy,
  retainAccuracy,
});
const goal = { forgetTarget: 0.1, retainBefore: 0.98, maxRetainDrop: 0.02 };

describe('the choice', () => {
  test('is the largest α that meets the goal', () => {
    const outcomes = [
      outcome(2, 0, 0.965),
      outcome(5, 0.1, 0.97),
      outcome(3, 0, 0.97),
      outcome(8, 0.3, 0.98),
    ];
    expect(chooseAlpha(outcomes, goal).chosen).toBe(outcomes[1]);
  });

  test('takes a drop of just the limit', () => {
    const outcomes = [outcome(2, 0.1, 0.96)];
    expect(0.98 - 0.96).toBeGreaterThan(0.02);
    expect(chooseAlpha(outcomes, goal).chosen).toBe(outcomes[0]);
    expect(chooseAlpha([outcome(2, 0.1, 0.9599)], goal).chosen).toBeUndefined();
    expect(chooseAlpha([outcome(2, 0.1001, 0.96)], goal).chosen).toBeUndefined();
  });

  test('never is an outcome with NaN', () => {
    const { chosen, pareto } = chooseAlpha([outcome(2, Number.NaN, 1), outcome(3, 0, NaN)], goal);
    expect(chosen).toBeUndefined();
    expect(pareto).toEqual([]);
  });

  const accuracy = fc.integer({ min: 0, max: 8 }).map((eighths) => eighths / 8);
  const outcomes = fc.uniqueArray(
    fc
      .tuple(fc.integer({ min: 1, max: 99 }), accuracy, accuracy)
      .map(([alpha, forget, retain]) => outcome(alpha, forget, retain)),
    { selector: ({ alpha }) => alpha },
  );

  test('meets the goal, and nothing larger does', () => {
    fc.assert(
      fc.property(outcomes, accuracy, accuracy, (tried, forgetTarget, maxRetainDrop) => {
        const { chosen } = chooseAlpha(tried, { forgetTarget, retainBefore: 1, maxRetainDrop });
        const fitting = tried.filter(
          (o) => o.forgetAccuracy <= forgetTarget && 1 - o.retainAccuracy <= maxRetainDrop,
        );
        expect(chosen?.alpha).toBe(
          fitting.length > 0 ? Math.max(...fitting.map(({ alpha }) => alpha)) : undefined,
        );
      }),
    );
  });

  test('the Pareto list is what nothing beats', () => {
    fc.assert(
      fc.property(outcomes, (tried) => {
        const { pareto } = chooseAlpha(tried, goal);
        const expected = tried
          .filter((o) =>
            tried.every(
              (p) =>
                o === p ||
                p.forgetAccuracy > o.forgetAccuracy ||
                p.retainAccuracy < o.retainAccuracy ||
                (p.forgetAccuracy === o.forgetAccuracy &&
                  p.retainAccuracy === o.retainAccuracy &&
                  p.alpha < o.alpha),
            ),
          )
          .sort((a, b) => b.forgetAccuracy - a.forgetAccuracy);
        expect(pareto).toEqual(expected);
      }),
    );
  });
});
