/** The panel that says which model answers, and how far to trust it. */

import { element, percent } from "./card.js";

/** Fill the panel from the answer of `GET v1/model`. A part that a card does not tell is left out. */
export function describe(body, { card, threshold = card.threshold, digest, limits }) {
  // Of a model that all photos taught, folds judge its copies; the first figures are those of the strictest folds.
  const folds = !card.metrics?.test;
  const test = card.metrics?.test ?? Object.values(card.metrics ?? {})[0] ?? {};
  const parts = [];

  parts.push(
    element(
      "p",
      "lead",
      `It names a category only where it is at least ${percent(threshold)} confident. Below that it says “not sure” ` +
        "and shows its best guesses for you to choose from.",
    ),
  );

  const figures = element("dl", "figures");
  const figure = (value, words) => {
    const pair = element("div");
    pair.append(element("dt", "", words), element("dd", "", value));
    figures.append(pair);
  };
  if (test.sure) {
    if (test.sure.accuracy !== null) figure(percent(test.sure.accuracy), "of the categories it names are right");
    figure(percent(test.sure.share), "of photos it names; to the rest it says “not sure”");
  }
  if (test.accuracy !== undefined) {
    const [low, high] = test.intervals?.accuracy ?? [];
    const range = low === undefined ? "" : ` (${Math.round(100 * low)}–${percent(high)} is likely)`;
    figure(percent(test.accuracy), `of its best guesses are right, sure or not${range}`);
  }
  if (figures.childElementCount) {
    parts.push(figures);
    const on = `Measured on ${test.photos ? `${test.photos.toLocaleString("en")} ` : ""}photos`;
    const people = /no sender/.test(test.protocol ?? "");
    const unseen = folds
      ? `, each by a copy of this model that had ${people ? "learned from neither it nor any other photo of the same person" : "not learned from it"}. The model itself has learned from all of them.`
      : ` that it was not taught${people ? ", from people of whom it had seen none" : ""}.`;
    parts.push(element("p", "", `${on}${unseen} Your photos may be harder or easier: look over a sample before you rely on it.`));
    if (threshold !== card.threshold) {
      const own = `The model's own threshold is ${percent(card.threshold)}, and these figures are of that one; who runs this service chose ${percent(threshold)}.`;
      parts.push(element("p", "", own));
    }
  } else {
    parts.push(element("p", "", "Its card tells no figures. Look over a sample of your own photos before you rely on it."));
  }

  const classes = Object.entries(test.per_class ?? {});
  if (classes.length) {
    parts.push(element("h3", "", "Category by category"));
    parts.push(
      element("p", "caption", "Best guesses, sure or not. Figures from fewer than 20 photos are rough, and set in grey."),
    );
    const table = element("table");
    const head = table.createTHead().insertRow();
    for (const [words, hint] of [
      ["Category", ""],
      ["Right", "Of the photos it called this, how many were"],
      ["Found", "Of the photos that were this, how many it called so"],
      ["Photos", "How many photos of it were judged"],
    ]) {
      const cell = element("th", "", words);
      cell.scope = "col";
      if (hint) cell.title = hint;
      head.append(cell);
    }
    const rows = table.createTBody();
    for (const [label, { precision, recall, photos }] of classes) {
      const row = rows.insertRow();
      row.className = photos < 20 ? "rough" : "";
      const name = element("th", "", label);
      name.scope = "row";
      row.append(name);
      for (const share of [precision, recall]) {
        const cell = row.insertCell();
        const value = element("span", "meter");
        value.setAttribute("aria-hidden", "true");
        value.style.setProperty("--share", share ?? 0);
        value.append(element("span", "fill"));
        cell.append(element("span", "share", share === null || share === undefined ? "–" : percent(share)), value);
      }
      row.insertCell().textContent = photos;
    }
    parts.push(table);
    parts.push(
      element(
        "p",
        "caption",
        "Right: of the photos that it called so, how many were. Found: of the photos that were so, how many it called so.",
      ),
    );
  }

  parts.push(element("h3", "", "The model"));
  const facts = element("dl", "facts-list");
  const fact = (words, value) => {
    if (value === null || value === undefined || value === "") return;
    facts.append(element("dt", "", words), element("dd", "", String(value)));
  };
  fact("Name", card.name);
  fact("Made", card.created?.slice(0, 10));
  fact("Version", card.version);
  fact("Taught on", card.data?.photos && `${card.data.photos.toLocaleString("en")} photos`);
  fact("Judged on", test.protocol);
  fact("Weights from", card.weights?.source);
  fact("Licence", card.licence);
  fact("Digest", digest);
  fact("Takes photos up to", limits?.bytes && `${megabytes(limits.bytes)}, ${Math.round(limits.pixels / 1e6)} megapixels`);
  parts.push(facts);
  body.replaceChildren(...parts);
}

/** A size for people. */
export function megabytes(bytes) {
  const value = bytes / 1e6;
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)}\u202fMB`;
}
