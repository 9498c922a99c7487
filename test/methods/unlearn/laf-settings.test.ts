import { parameters } from '../../../src/methods/unlearn/laf/parameters.js';
import { settle } from '../../../src/methods/unlearn/laf/settings.js';

const settled = (given: object, extractor: number, perEpoch: number) =>
  settle(parameters.parse(given), extractor, perEpoch);

test('published rates where there are as many steps as published runs have', () => {
  expect(settled({}, 5e5, 188)).toMatchObject({
    epochs: 20,
    latent: 8,
    unlearnRate: 5e-5,
    alignRate: 1e-4,
    note: '3760 pairs of steps at rates 0.00005 and 0.0001',
  });
  expect(settled({}, 11e6, 157)).toMatchObject({
    epochs: 40,
    latent: 16,
    unlearnRate: 1e-5,
    alignRate: 5e-5,
    note: '6280 pairs of steps at rates 0.00001 and 0.00005',
  });
});

test('fewer steps raise them by as much, up to four times', () => {
  expect(settled({}, 1e5, 94)).toMatchObject({ unlearnRate: 1e-4, alignRate: 2e-4 });
  const short = settled({}, 1e5, 13);
  expect(short).toMatchObject({ unlearnRate: 2e-4, alignRate: 4e-4 });
  expect(short.note).toBe(
    '260 pairs of steps at rates 0.0002 and 0.0004: the published ones times 4, as published runs have 3760 steps',
  );
  expect(settled({}, 1e5, 2).note).toMatch(
    /WARNING: so few may forget little; .* --epochs 125, or/,
  );
});

test('what is given is taken as it is', () => {
  const own = { unlearnRate: 1e-3, alignRate: 2e-3, epochs: 5, latent: 3 };
  expect(settled(own, 11e6, 10)).toMatchObject(own);
  expect(settled(own, 11e6, 10).note).toBe(
    '50 pairs of steps at rates 0.001 and 0.002. WARNING: so few may forget little; if so, try --epochs 25, or higher rates',
  );
  // One of two: the other is raised.
  expect(settled({ unlearnRate: 1e-3 }, 1e5, 13)).toMatchObject({
    unlearnRate: 1e-3,
    alignRate: 4e-4,
    note: '260 pairs of steps at rates 0.001 and 0.0004',
  });
});

test('a run that goes on keeps what was settled', () => {
  const earlier = { 'unlearn-rate': 7e-5, 'align-rate': 9e-5, latent: 5 };
  expect(settle(parameters.parse({}), 1e5, 13, earlier)).toMatchObject({
    unlearnRate: 7e-5,
    alignRate: 9e-5,
    latent: 5,
  });
  const given = parameters.parse({ latent: 6, alignRate: 1e-3 });
  expect(settle(given, 1e5, 13, earlier)).toMatchObject({ latent: 6, alignRate: 1e-3 });
});
