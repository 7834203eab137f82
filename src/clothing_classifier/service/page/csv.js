/** The photos' answers as a table that spreadsheets open rightly: RFC 4180, UTF-8 with its mark. */

const RUNNERS_UP = 4;

/** First characters that make a spreadsheet take text for a formula, also in their wide forms. */
const FORMULA = /^[\t\r\n ]*[=+\-@＝＋－＠]|^[\t\r\n]/;

/**
 * @param {object[]} photos as page.js holds them
 * @returns {string} the table, with the byte order mark by which spreadsheets know UTF-8
 */
export function toCsv(photos) {
  const header = ["name", "answer", "label", "probability", "sure", "corrected", "error"];
  for (let i = 2; i < RUNNERS_UP + 2; i += 1) header.push(`label_${i}`, `probability_${i}`);
  return "\ufeff" + [header, ...photos.map(row)].map((cells) => cells.join(",") + "\r\n").join("");
}

function row(photo) {
  const { result } = photo;
  const error = photo.error?.reason ?? (result ? "" : "not classified yet");
  const cells = [
    text(photo.name),
    text(photo.answer ?? result?.answer ?? ""),
    text(result?.label ?? ""),
    result?.probability ?? "",
    result?.sure ?? "",
    photo.answer !== null,
    text(error),
  ];
  for (let i = 1; i <= RUNNERS_UP; i += 1) {
    const { label = "", probability = "" } = result?.labels[i] ?? {};
    cells.push(text(label), probability);
  }
  return cells;
}

/** A cell of text. An apostrophe in front is how spreadsheets mark what is not to be computed. */
function text(value) {
  const safe = FORMULA.test(value) ? "'" + value : value;
  return /[",;\r\n\t']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
