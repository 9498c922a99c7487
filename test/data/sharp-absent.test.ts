import { jest } from '@jest/globals';
import { expectBadData, fixture } from './helpers.js';

test('without sharp, images say what to install', async () => {
  jest.unstable_mockModule('sharp', () => {
    throw Object.assign(new Error("Cannot find package 'sharp'"), { code: 'ERR_MODULE_NOT_FOUND' });
  });
  const { openImages } = await import('../../src/data/images.js');
  const images = await (await openImages(fixture('.'), 3)).column('data');
  await expectBadData(images.item(0), /optional package sharp.*npm install sharp/);
});
