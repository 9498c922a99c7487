import { readdir, realpath } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type sharp from 'sharp';
import { dataError, ioError } from '../errors.js';
import { statPath } from './bytes.js';
import type { Column, ColumnFile } from './columns.js';
import type { TensorData } from './types.js';

const extensions = new Set(['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif']);

/**
 * A folder of images: a folder per class, whose names in code-unit order give labels 0, 1, ..., or images
 * directly in the folder, without labels. Class folders are searched in depth; files of other types are
 * left out. Items are uint8 `[height, width, channels]`; the implied scale is 1/255.
 * @param channels 1 for grey (ITU-R 601 luma, as Pillow's "L"), 3 for RGB; transparency is dropped
 */
export async function openImages(folder: string, channels: 1 | 3): Promise<ColumnFile> {
  const classes = (await children(folder)).filter((child) => child.isFolder);
  const images: string[] = [];
  const labels: number[] = [];
  for (const [label, { path }] of classes.entries())
    for (const image of await imagesIn(path)) {
      images.push(image);
      labels.push(label);
    }
  if (classes.length === 0) images.push(...(await imagesIn(folder)));

  const data: Column = {
    where: folder,
    length: images.length,
    implied: { layout: 'NHWC', scale: 1 / 255 },
    item: (i) => decode(images[i], channels),
    numbers: () => {
      throw dataError('images are not single numbers', { where: folder });
    },
  };
  const label: Column = {
    where: folder,
    length: labels.length,
    itemDims: [],
    item: async (i) => ({ dtype: 'int32', dims: [], data: Int32Array.of(labels[i]) }),
    numbers: async () => labels,
  };
  return {
    names: classes.length > 0 ? ['data', 'label'] : ['data'],
    files: images,
    column: async (name) => (name === 'label' ? label : data),
  };
}

/** What a folder holds, links followed, in code-unit order of the names. */
async function children(folder: string) {
  const names = await readdir(folder).catch((cause) => {
    throw ioError(`the folder cannot be read (${cause.code})`, { where: folder, cause });
  });
  const found: { path: string; isFolder: boolean; isFile: boolean }[] = [];
  for (const name of names.sort()) {
    if (name.startsWith('.')) continue;
    const path = join(folder, name);
    const info = await statPath(path);
    found.push({ path, isFolder: info.isDirectory(), isFile: info.isFile() });
  }
  return found;
}

/** Every image below a folder; a folder that several links lead to is read once, so that loops end. */
async function imagesIn(folder: string, seen = new Set<string>()): Promise<string[]> {
  const real = await realpath(folder);
  if (seen.has(real)) return [];
  seen.add(real);
  const images: string[] = [];
  for (const { path, isFolder, isFile } of await children(folder)) {
    if (isFolder) images.push(...(await imagesIn(path, seen)));
    else if (isFile && extensions.has(extname(path).toLowerCase())) images.push(path);
  }
  return images;
}

async function decode(path: string, channels: 1 | 3): Promise<TensorData> {
  const sharp = await loadSharp();
  try {
    const { data, info } = await sharp(path)
      .removeAlpha()
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    const pixels = info.width * info.height;
    const rgb = info.channels === 3 ? data : repeatGrey(data, info.channels, pixels);
    const dims = [info.height, info.width, channels];
    return {
      dtype: 'uint8',
      dims,
      data: channels === 3 ? Uint8Array.from(rgb) : luma(rgb, pixels),
    };
  } catch (cause) {
    throw dataError('the image cannot be decoded', {
      where: path,
      got: cause instanceof Error ? cause.message : String(cause),
      cause,
    });
  }
}

/** The first of `channels` interleaved values, three times. */
function repeatGrey(data: Uint8Array, channels: number, pixels: number): Uint8Array {
  const rgb = new Uint8Array(pixels * 3);
  for (let i = 0; i < pixels; i++) rgb.fill(data[i * channels], 3 * i, 3 * i + 3);
  return rgb;
}

/** ITU-R 601 luma in 16-bit fixed point, as Pillow computes it. */
function luma(rgb: Uint8Array, pixels: number): Uint8Array {
  const grey = new Uint8Array(pixels);
  for (let i = 0; i < pixels; i++)
    grey[i] = (rgb[3 * i] * 19595 + rgb[3 * i + 1] * 38470 + rgb[3 * i + 2] * 7471 + 0x8000) >> 16;
  return grey;
}

async function loadSharp(): Promise<typeof sharp> {
  try {
    return (await import('sharp')).default;
  } catch (cause) {
    throw dataError('reading images needs the optional package sharp, which is not installed', {
      hint: 'Run `npm install sharp`, or give the images as a .npz file.',
      cause,
    });
  }
}
