/** The dialog in which a person chooses a category, by typing or by pointing. */

import { category, element, percent } from "./card.js";

const dialog = document.getElementById("chooser");
const heading = document.getElementById("chooser-heading");
const input = document.getElementById("chooser-input");
const list = document.getElementById("chooser-list");
const none = document.getElementById("chooser-none");

let labels = [];
let photo = null;
let chosen = () => {};

/**
 * Ask for a photo's category.
 * @param {object} asked the photo
 * @param {{labels: string[], typed?: string, beside?: Element, choose: (label: string) => void}} how
 */
export function ask(asked, { labels: known, typed = "", beside, choose }) {
  photo = asked;
  labels = known;
  chosen = choose;
  heading.textContent = `What is ${photo.name.slice(photo.name.lastIndexOf("/") + 1)}?`;
  input.value = typed;
  dialog.showModal();
  fill();
  place(beside);
  // A phone's keyboard would cover the list that a finger can choose from.
  if (typed || !matchMedia("(pointer: coarse)").matches) input.focus();
  else dialog.focus(); // browsers would take the field
}

/** Whether a dialog was clicked beside, not on it: its own padding is the dialog, too. */
export function isBeside(box, event) {
  const { left, right, top, bottom } = box.getBoundingClientRect();
  const inside = event.clientX >= left && event.clientX <= right && event.clientY >= top && event.clientY <= bottom;
  return event.target === box && !inside;
}

/** Beside the card, as far as the window has room there; the style sheet decides for small windows. */
function place(beside) {
  if (!beside) {
    dialog.style.removeProperty("--left");
    dialog.style.removeProperty("--top");
    return;
  }
  const card = beside.getBoundingClientRect();
  const { width, height } = dialog.getBoundingClientRect();
  const clamp = (value, most) => Math.max(12, Math.min(value, most - 12));
  const after = card.right + 12;
  const left = after + width < innerWidth ? after : card.left - width - 12;
  dialog.style.setProperty("--left", `${clamp(left, innerWidth - width)}px`);
  dialog.style.setProperty("--top", `${clamp(card.bottom - height, innerHeight - height)}px`);
}

function fill() {
  const typed = fold(input.value);
  const rank = (label) => {
    const name = fold(label);
    if (name.startsWith(typed)) return 0;
    return name.includes(typed) ? 1 : 2;
  };
  const fitting = labels.filter((label) => rank(label) < 2).sort((a, b) => rank(a) - rank(b));
  const shares = new Map(photo.result?.labels.map(({ label, probability }) => [label, probability]));
  const now = category(photo);
  const options = fitting.map((label, i) => {
    const option = element("li", "option");
    option.id = `option-${i}`;
    option.role = "option";
    option.dataset.label = label;
    option.append(element("span", "label", label));
    if (shares.has(label)) option.append(element("span", "share", percent(shares.get(label))));
    if (label === photo.answer) option.append(element("span", "share", "your answer"));
    return option;
  });
  list.replaceChildren(...options);
  none.textContent = options.length ? "" : "No such category.";
  select(typed ? 0 : Math.max(0, fitting.indexOf(now)));
}

function select(index) {
  const options = [...list.children];
  options.forEach((option, i) => option.setAttribute("aria-selected", i === index));
  const option = options[index];
  if (option) input.setAttribute("aria-activedescendant", option.id);
  else input.removeAttribute("aria-activedescendant");
  option?.scrollIntoView({ block: "nearest" });
}

function take(option) {
  if (!option) return;
  dialog.close();
  chosen(option.dataset.label);
}

/** Without case, accents, spaces and hyphens: "tshirt" finds "T-Shirt". Signs such as emoji stay. */
export function fold(text) {
  return text.normalize("NFKD").toLowerCase().replace(/[^\p{L}\p{N}\p{So}]/gu, "");
}

input.addEventListener("input", fill);
input.addEventListener("keydown", (event) => {
  const options = [...list.children];
  const at = options.findIndex((option) => option.getAttribute("aria-selected") === "true");
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 6, PageUp: -6 };
  if (event.key in steps && options.length) {
    const next = at + steps[event.key];
    const wraps = Math.abs(steps[event.key]) === 1;
    select(wraps ? (next + options.length) % options.length : Math.max(0, Math.min(options.length - 1, next)));
  } else if (event.key === "Enter" && !event.isComposing) {
    take(options[at]);
  } else {
    return;
  }
  event.preventDefault();
});
// A tablet may have a keyboard all the same.
dialog.addEventListener("keydown", (event) => event.target === dialog && event.key !== "Tab" && input.focus());
list.addEventListener("click", (event) => take(event.target.closest("[role=option]")));
list.addEventListener("pointermove", (event) => {
  const option = event.target.closest("[role=option]");
  if (option && option.getAttribute("aria-selected") !== "true") select([...list.children].indexOf(option));
});
dialog.addEventListener("click", (event) => isBeside(dialog, event) && dialog.close());
