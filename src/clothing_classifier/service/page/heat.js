/** The evidence of a class, drawn over its photo. */

/** Ten even steps of the colour map "inferno", whose lightness grows evenly (S. van der Walt, N. Smith, 2015, CC0). */
const COLOURS = [
  [0, 0, 4], [27, 12, 66], [75, 12, 107], [120, 28, 109], [165, 44, 96],
  [207, 68, 70], [237, 105, 37], [251, 154, 6], [247, 208, 60], [252, 255, 164],
]; // prettier-ignore

const LONGER_SIDE = 160;

/**
 * Draw an evidence map.
 * @param {HTMLCanvasElement} canvas gets the photo's proportions
 * @param {string} png base64 of a grey PNG that covers the photo
 * @param {number} ratio the photo's width by its height
 * @param {() => boolean} wanted whether the canvas is still to show it, once the map is read
 */
export async function drawHeat(canvas, png, ratio, wanted) {
  const grid = await readGrey(png);
  if (!wanted()) return;
  const width = (canvas.width = Math.max(1, Math.round(LONGER_SIDE * Math.min(1, ratio))));
  const height = (canvas.height = Math.max(1, Math.round(LONGER_SIDE / Math.max(1, ratio))));
  const across = stretch(grid.values, grid.width, width);
  const values = stretch(across, grid.height, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let at = 0; at < pixels.length; at += 1) pixels[at] = RAMP[Math.min(255, Math.max(0, Math.round(values[at])))];
  context.putImageData(image, 0, 0);
  canvas.dataset.drawn = "";
}

async function readGrey(png) {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data, width, height } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { values: Float32Array.from({ length: width * height }, (_, i) => data[4 * i]), width, height };
}

/** Each grey as a pixel. */
const RAMP = new Uint32Array(Uint8ClampedArray.from({ length: 4 * 256 }, (_, i) => colour(i >> 2)[i % 4]).buffer);

function colour(grey) {
  const place = (grey / 255) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return [...COLOURS[low].map((from, i) => from + (place - low) * (COLOURS[low + 1][i] - from)), 255];
}

/** Lines of `from` values, each stretched to `to`; they are columns afterwards. */
function stretch(values, from, to) {
  const lines = values.length / from;
  const stretched = new Float32Array(to * lines);
  for (let i = 0; i < to; i += 1) {
    for (const [cell, share] of weights(from, to, i)) {
      for (let line = 0; line < lines; line += 1) stretched[i * lines + line] += share * values[line * from + cell];
    }
  }
  return stretched;
}

/** For place `i` of `to`, the cells among `from` that count there: Catmull and Rom's spline, which keeps each cell. */
function weights(from, to, i) {
  const place = ((i + 0.5) * from) / to - 0.5;
  const first = Math.floor(place);
  const t = place - first;
  const shares = [
    (-t + 2 * t * t - t ** 3) / 2,
    (2 - 5 * t * t + 3 * t ** 3) / 2,
    (t + 4 * t * t - 3 * t ** 3) / 2,
    (t ** 3 - t * t) / 2,
  ];
  return shares.map((share, k) => [Math.min(from - 1, Math.max(0, first - 1 + k)), share]);
}
