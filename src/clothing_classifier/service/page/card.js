/** How one photo and what is known of it look. */

import { drawHeat } from "./heat.js";

const GUESSES = 3;

/** Kinds of errors that are no fault of the file's. */
const NOT_THE_FILE = new Set(["silent", "busy", "not-reached"]);

/** A share from 0 to 1 in per cent, never as more certain than it is. */
export function percent(share) {
  if (share > 0 && share < 0.01) return "<1\u202f%";
  if (share < 1 && share > 0.99) return ">99\u202f%";
  return `${Math.round(100 * share)}\u202f%`;
}

/** "waiting", "sure", "unsure", "failed" or "corrected". */
export function status(photo) {
  if (photo.answer !== null) return "corrected";
  if (photo.error) return "failed";
  if (!photo.result) return "waiting";
  return photo.result.sure ? "sure" : "unsure";
}

/** The category that a photo counts for, if it has one: a person's, or the model's best guess. */
export function category(photo) {
  return photo.answer ?? photo.result?.label ?? null;
}

/** The guesses that a person can take with a click or a digit. */
export function guesses(photo, count = GUESSES) {
  const labels = photo.result?.labels ?? [];
  return status(photo) === "sure" ? labels.slice(1, count + 1) : labels.slice(0, count);
}

/** A photo in one sentence, as a screen reader says it. */
export function inWords(photo) {
  const kind = status(photo);
  if (kind === "waiting") return `${photo.name}, waiting`;
  if (kind === "failed") return `${photo.name}${photo.error.kind === "request" ? ":" : ""} ${photo.error.reason}`;
  if (kind === "corrected") return `${photo.answer}, chosen by you, ${photo.name}`;
  const { label, probability } = photo.result;
  if (kind === "sure") return `${label}, ${percent(probability)}, ${photo.name}`;
  return `Not sure, perhaps ${label}, ${percent(probability)}, ${photo.name}`;
}

/** A new card; `paint` fills it. */
export function createCard(photo) {
  const card = document.getElementById("photo-template").content.firstElementChild.cloneNode(true);
  card.dataset.id = photo.id;
  const name = card.querySelector(".name");
  name.textContent = photo.name.slice(photo.name.lastIndexOf("/") + 1);
  name.title = photo.name;
  for (const [act, words] of [["open", "Look closer at"], ["change", "Change the category of"], ["remove", "Take out"]]) {
    const button = card.querySelector(`[data-act=${act}]`);
    button.setAttribute("aria-label", `${words} ${photo.name}`);
    if (act !== "open") button.title = act === "change" ? "Change the category" : "Take this photo out";
  }
  return card;
}

/** Bring a card up to date with its photo. */
export function paint(card, photo) {
  card.dataset.status = status(photo);
  card.firstElementChild.setAttribute("aria-label", inWords(photo));
  const picture = card.querySelector(".picture");
  const image = picture.querySelector("img");
  if (photo.preview && image.src !== photo.preview.url) {
    image.src = photo.preview.url;
    image.hidden = false;
  }
  picture.classList.toggle("none", photo.preview === null);
  const see = picture.querySelector(".see");
  see.hidden = !photo.result?.evidence || !photo.preview;
  see.setAttribute("aria-pressed", photo.evidence);
  see.title = photo.evidence ? "Hide the evidence" : "Where the model sees it";
  see.setAttribute("aria-label", `Evidence for ${photo.result?.label}`);
  showHeat(picture.querySelector("canvas"), photo, photo.evidence && photo.near && photo.preview, photo.preview);
  card.querySelector(".verdict").replaceChildren(...verdict(photo));
}

/** Show or hide the heat map over a picture whose size is known. */
export function showHeat(canvas, photo, wanted, size) {
  const png = photo.result?.evidence?.png;
  const shown = Boolean(wanted && png);
  canvas.hidden = !shown;
  canvas.parentElement.classList.toggle("hot", shown);
  if (!shown || canvas.dataset.of === photo.id) return;
  canvas.dataset.of = photo.id;
  const current = () => canvas.dataset.of === photo.id; // the large view's canvas may be another photo's by now
  drawHeat(canvas, png, size.width / size.height, current).catch(() => {
    if (current()) delete canvas.dataset.of;
  });
}

/** The heading, and below it the bars, of a photo. */
export function verdict(photo, { count = GUESSES } = {}) {
  const kind = status(photo);
  const head = element("h3", "heading");
  const parts = [head];
  if (kind === "waiting") {
    head.append(element("span", "category", photo.sent ? "Looking …" : "Waiting …"));
    parts.push(element("div", "ghost"), element("div", "ghost"), element("div", "ghost"));
    return parts;
  }
  if (kind === "failed") {
    head.append(element("span", "category", photo.error.again ? "Not classified" : "Could not be read"));
    parts.push(element("p", "reason", sentence(photo)));
    if (photo.error.again) parts.push(action("again", "Try again", "button small"));
    return parts;
  }
  const { result } = photo;
  head.append(element("span", "category", kind === "unsure" ? "Not sure" : category(photo)));
  if (kind === "sure") {
    head.append(element("span", "confidence", percent(result.probability)));
    parts.push(bar(result.probability, photo.threshold));
  } else if (kind === "unsure") {
    parts.push(element("p", "caption", `Best guesses; it needs ${percent(photo.threshold)}`));
  } else {
    head.append(action("restore", "Undo", "quiet undo"));
    const said = result && result.label !== photo.answer ? `Your answer, not ${result.label}` : "Your answer";
    parts.push(element("p", "caption", said));
  }
  const list = element("ol", "guesses");
  list.setAttribute("aria-label", kind === "sure" ? "Runners-up; take one" : "Guesses; take one");
  for (const { label, probability } of guesses(photo, count)) {
    const button = action("guess", "", "guess");
    button.dataset.label = label;
    button.title = `It is: ${label}`;
    const mark = element("span", "label", label);
    button.append(mark, bar(probability, photo.threshold), element("span", "share", percent(probability)));
    const item = element("li");
    item.append(button);
    list.append(item);
  }
  if (list.childElementCount) parts.push(list);
  return parts;
}

/** Why there is no answer. A reason follows the photo's name, but for one that is of the request as a whole. */
function sentence({ error: { kind, reason } }) {
  const subject = NOT_THE_FILE.has(kind) ? "It" : "This file";
  const whole = kind === "request" ? reason : `${subject} ${reason}`;
  return whole + (/[.!?]$/.test(whole) ? "" : ".");
}

function bar(share, threshold) {
  const whole = element("span", "meter");
  whole.setAttribute("aria-hidden", "true");
  whole.style.setProperty("--share", share);
  whole.style.setProperty("--threshold", threshold);
  whole.append(element("span", "fill"));
  return whole;
}

function action(act, text, className) {
  const button = element("button", className, text);
  button.type = "button";
  button.dataset.act = act;
  button.tabIndex = -1;
  return button;
}

/** A new element with a class and a text. */
export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
