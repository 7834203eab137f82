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
 */
export async function drawHeat(canvas, png, ratio) {
  const grid = await readGrey(png);
  const width = (canvas.width = Math.max(1, Math.round(LONGER_SIDE * Math.min(1, ratio))));
  const height = (canvas.height = Math.max(1, Math.round(LONGER_SIDE / Math.max(1, ratio))));
  const columns = weights(grid.width, width);
  const rows = weights(grid.height, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let y = 0, at = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, at += 4) {
      let value = 0;
      for (const [row, down] of rows[y]) {
        for (const [column, across] of columns[x]) value += down * across * grid.data[4 * (row * grid.width + column)];
      }
      const share = Math.min(1, Math.max(0, value / 255));
      const [red, green, blue] = colour(share);
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = 255;
    }
  }
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
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function colour(share) {
  const place = share * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((from, i) => from + (place - low) * (COLOURS[low + 1][i] - from));
}

/** For each of `to` places, the cells among `from` that count there: Catmull and Rom's spline, which keeps each cell. */
function weights(from, to) {
  return Array.from({ length: to }, (_, i) => {
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
  });
}
