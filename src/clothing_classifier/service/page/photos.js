/** Where photos come from: pickers, drops, folders and the clipboard; and the small previews of them. */

/** Suffixes that a file in a folder must have to be taken. A file that is given by itself is always taken. */
const SUFFIXES = new Set(
  "apng avif bmp gif heic heif hif jfif jpe jpeg jpg mpo png tif tiff webp".split(" "),
);

/** How files begin that hardly any browser shows: HEIC and TIFF, whatever they are called. */
const STRANGE = /ftyp(?!avi)|^II[*+]|^MM\0[*+]/;

/** Whether the service should give the picture of a photo. */
export async function isStrange(file) {
  return STRANGE.test(await file.slice(0, 12).text());
}

/** Width of a preview in pixels: a card's on a screen of two pixels a point. */
const PREVIEW_WIDTH = 512;

/** Decoders at work at once. A photo of 12 megapixels takes 48 MB while it is decoded. */
const DECODERS = 2;

function isPicture(name) {
  const base = name.slice(name.lastIndexOf("/") + 1);
  return !base.startsWith(".") && SUFFIXES.has(base.slice(base.lastIndexOf(".") + 1).toLowerCase());
}

/**
 * Files of a picker of folders, without what is no picture.
 * @returns {{found: {file: File, name: string}[], others: number}}
 */
export function fromFolder(files) {
  const named = [...files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
  const found = named.filter(({ name }) => isPicture(name) && !/(^|\/)\./.test(name));
  return { found: sorted(found), others: named.length - found.length };
}

/** Files that were given one by one. */
export function fromFiles(files) {
  return { found: [...files].map((file) => ({ file, name: file.name })), others: 0 };
}

/**
 * Files and folders that were dropped or pasted. Must be called while the event is handled: the browser empties the
 * transfer afterwards.
 */
export async function fromTransfer(transfer) {
  const entries = [...transfer.items]
    .filter((item) => item.kind === "file")
    .map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = [];
  let others = 0;
  for (const { entry, file } of entries) {
    if (!entry?.isDirectory) {
      if (file) found.push({ file, name: file.name });
      continue;
    }
    const inside = [];
    others += await walk(entry, inside);
    found.push(...sorted(inside));
  }
  return { found, others };
}

async function walk(folder, found) {
  const reader = folder.createReader();
  let others = 0;
  for (;;) {
    const entries = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!entries.length) return others; // a reader gives a hundred entries at a time
    for (const entry of entries) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) others += await walk(entry, found);
      else if (!isPicture(entry.name)) others += 1;
      else {
        const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
        if (file) found.push({ file, name: entry.fullPath.replace(/^\//, "") });
        else others += 1;
      }
    }
  }
}

function sorted(files) {
  const { compare } = new Intl.Collator(undefined, { numeric: true });
  return files.sort((a, b) => compare(a.name, b.name));
}

const waiting = [];
let decoding = 0;

/**
 * A small picture of a photo, upright by its EXIF.
 * @returns {Promise<{url: string, width: number, height: number} | null>} null where this browser cannot read the
 *   file. Who takes the preview revokes its address.
 */
export async function preview(file) {
  if (decoding >= DECODERS) await new Promise((resolve) => waiting.push(resolve));
  else decoding += 1;
  try {
    const bitmap = await decode(file);
    if (!bitmap) return null;
    const canvas = document.createElement("canvas");
    const scale = Math.min(1, PREVIEW_WIDTH / bitmap.width, (4 * PREVIEW_WIDTH) / bitmap.height);
    const width = (canvas.width = Math.max(1, Math.round(bitmap.width * scale)));
    const height = (canvas.height = Math.max(1, Math.round(bitmap.height * scale)));
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff"; // what is transparent is white for the model, too
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close?.();
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.85));
    canvas.width = canvas.height = 0; // frees its memory now and not at some later time
    return blob && { url: URL.createObjectURL(blob), width, height };
  } finally {
    const next = waiting.shift();
    if (next) next();
    else decoding -= 1;
  }
}

async function decode(file) {
  const options = { imageOrientation: "from-image", resizeWidth: PREVIEW_WIDTH, resizeQuality: "medium" };
  try {
    return await createImageBitmap(file, options);
  } catch {
    // Older browsers do not know the options; others read some formats as an element only.
  }
  const url = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = url;
    await image.decode();
    return image;
  } catch {
    return null;
  } finally {
    URL.revokeObjectURL(url);
  }
}
