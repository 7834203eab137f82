/** The page: photos come in, go to the service, and are looked at, put in order, corrected and taken away as a table. */

import { ask, fold, isBeside } from "./chooser.js";
import { category, createCard, element, guesses, inWords, paint, percent, showHeat, status, verdict } from "./card.js";
import { toCsv } from "./csv.js";
import { describe, megabytes } from "./model.js";
import { fromFiles, fromFolder, fromTransfer, preview } from "./photos.js";
import { Service } from "./service.js";

const $ = (id) => document.getElementById(id);
const grid = $("grid");

const STATUSES = {
  all: "All",
  sure: "Sure",
  unsure: "Not sure",
  corrected: "Corrected",
  failed: "Failed",
};
const TOAST = 10e3; // ms
const NAMED = 30; // categories, before there are photos
const FEW = 20; // photos, which are soon classified again
const COLLATOR = new Intl.Collator(undefined, { numeric: true });

/** In the order in which they were added. */
let photos = [];
const byId = new Map();
let nextId = 1;
let shown = []; // what the filters let through, in the order of the screen
let active = null; // the card that the keyboard is at
let viewed = null; // the photo in the large view
const past = []; // what can be undone
let saved = true; // whether all answers, the service's and a person's, are in a downloaded table
const filter = { status: "all", category: "", text: "", order: "added" };

// ------------------------------------------------------------------------------------------------- the service

const service = new Service({
  sent(photo) {
    photo.sent = true;
    changed(photo);
  },
  answered(photo, result, model) {
    photo.result = result;
    photo.threshold = model.threshold;
    photo.error = null;
    takePreview(photo);
    settled(photo);
    if (byId.has(photo.id)) saved = false;
  },
  failed(photo, error) {
    photo.error = error;
    settled(photo);
  },
  state: tellState,
  described(model) {
    const { card, limits } = model;
    const threshold = model.threshold ?? card.threshold;
    describe($("model-body"), model);
    const more = card.labels.length > NAMED ? " and others" : "";
    $("fact-labels").textContent = `One of ${card.labels.length}: ${card.labels.slice(0, NAMED).join(", ")}${more}.`;
    $("fact-threshold").textContent =
      `Where it is less than ${percent(threshold)} confident it says so, and shows its best guesses.`;
    for (const photo of photos) if (!photo.result && !photo.error) tooLarge(photo, limits);
    draw();
  },
});

function tellState({ kind, seconds, wrong }) {
  const wait = Math.round(seconds);
  const banners = {
    busy: [`The service is busy. It goes on in ${wait || 1} s.`, ""],
    silent: [`The service does not answer. Trying again in ${wait} s; your photos are kept.`, "Try now"],
    stopped: ["The service does not answer. It may be down, or the network is. Your photos are kept.", "Try again"],
    locked: ["The service needs a key before it classifies photos.", "Enter the key"],
  };
  const [text = "", button = ""] = banners[kind] ?? [];
  show($("banner"), text !== "");
  if (text !== $("banner-text").textContent && text && kind !== "busy") say(text);
  $("banner-text").textContent = text;
  $("banner-button").textContent = button;
  show($("banner-button"), button !== "");
  $("banner-button").dataset.do = kind;
  if (kind === "locked") askForKey(wrong);
}

function askForKey(wrong) {
  $("key-error").textContent = wrong ? "That key was not accepted. Is it complete?" : "";
  $("key-input").value = "";
  if (!$("key").open) $("key").showModal();
  $("key-input").focus();
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = $("key-input").value.trim();
  if (!/^[\x20-\x7e]+$/.test(key)) {
    $("key-error").textContent = "That cannot be a key: it has letters that keys do not have.";
    return;
  }
  $("key").close();
  show($("banner"), false);
  service.unlock(key);
});

function tryAgain(failed) {
  for (const photo of failed) {
    photo.error = null;
    photo.sent = false;
    changed(photo);
  }
  show($("banner"), false);
  service.send(failed);
  service.now();
}

// -------------------------------------------------------------------------------------------------- photos come in

function add({ found, others }) {
  // Of one that could not be read, there may be a better copy.
  const known = new Set(photos.filter((photo) => photo.error?.again !== false).map((photo) => photo.origin));
  const names = new Set(photos.map((photo) => photo.name));
  const added = [];
  for (const { file, name } of found) {
    const origin = `${name}/${file.size}/${file.lastModified}`;
    if (known.has(origin)) continue;
    known.add(origin);
    const photo = {
      id: String(nextId++),
      file,
      origin,
      name: tellApart(name, names),
      answer: null, // a person's
      result: null, // the service's
      error: null,
      sent: false,
      threshold: 1,
      evidence: $("evidence").checked,
      near: false, // whether it is on the screen, or nearly
      preview: undefined, // null where the browser cannot make one
    };
    names.add(photo.name);
    byId.set(photo.id, photo);
    photo.card = createCard(photo);
    sight.observe(photo.card);
    tooLarge(photo, service.model?.limits);
    paint(photo.card, photo);
    added.push(photo);
  }
  photos.push(...added);
  for (const photo of added) makePreview(photo);
  service.send(added.filter((photo) => !photo.error));
  const here = found.length - added.length;
  const words = [];
  if (added.length) words.push(`${count(added.length, "photo", "photos")} added.`);
  if (here) words.push(`${count(here, "photo is", "photos are")} here already.`);
  if (others && !found.length) words.push("There are no photos in there.");
  if (others) words.push(`${count(others, "other file was", "other files were")} left out.`);
  if (here || others) toast(words.join(" "));
  if (words.length) say(words.join(" "));
  draw();
}

/** A name that no photo has yet: some telephones call all that their camera takes the same, and so do two folders. */
function tellApart(name, names) {
  const [, stem, suffix] = name.match(/^(.*?)(\.[^.]*)?$/s);
  let unique = name;
  for (let number = 2; names.has(unique); number += 1) unique = `${stem} ${number}${suffix ?? ""}`;
  return unique;
}

function tooLarge(photo, limits) {
  if (!limits?.bytes || photo.file.size <= limits.bytes) return;
  const reason = `is ${megabytes(photo.file.size)}; this service takes photos of up to ${megabytes(limits.bytes)}. Make it smaller, and add it again.`;
  photo.error = { kind: "too-large", reason, again: false };
  service.forget([photo]);
  changed(photo);
}

async function makePreview(photo) {
  const made = await preview(photo.file).catch(() => null);
  if (made && (!byId.has(photo.id) || photo.preview)) {
    URL.revokeObjectURL(made.url); // it was taken out in the meantime, and perhaps put back
    return;
  }
  photo.preview = made;
  takePreview(photo);
  changed(photo);
}

/** Show the service's picture of a photo that this browser cannot show. */
function takePreview(photo) {
  const given = photo.result?.preview;
  if (photo.preview !== null || !given) return;
  photo.preview = { url: `data:image/jpeg;base64,${given.jpeg}`, width: given.width, height: given.height, given: true };
}

const busyDropping = { depth: 0 };
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  busyDropping.depth += 1;
  $("over").hidden = document.querySelector("dialog[open]") !== null;
});
addEventListener("dragleave", (event) => {
  if (!hasFiles(event)) return;
  busyDropping.depth = Math.max(0, busyDropping.depth - 1);
  if (!busyDropping.depth) $("over").hidden = true;
});
addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
});
addEventListener("drop", async (event) => {
  busyDropping.depth = 0;
  $("over").hidden = true;
  if (!hasFiles(event)) return;
  event.preventDefault();
  add(await fromTransfer(event.dataTransfer));
});

let pasted = 0;
addEventListener("paste", async (event) => {
  if (!event.clipboardData?.files.length) return;
  // Of a spreadsheet's cells, the clipboard has a picture beside the text; who is in a field wants the text.
  if (event.target.matches?.("input, textarea") && event.clipboardData.types.includes("text/plain")) return;
  event.preventDefault();
  const taken = await fromTransfer(event.clipboardData);
  for (const photo of taken.found) {
    if (photo.name === "image.png") photo.name = `pasted ${(pasted += 1)}.png`; // every pasted picture is called so
  }
  add(taken);
});

for (const [id, read] of [["pick", fromFiles], ["folder", fromFolder], ["camera", fromFiles]]) {
  $(id).addEventListener("change", () => {
    const taken = read($(id).files);
    $(id).value = ""; // so that the same file can be chosen again
    add(taken);
    if (id !== "camera" || !taken.found.length) return;
    drawNow();
    photos.at(-1).card.scrollIntoView({ block: "nearest" }); // or who takes one after the other would not see it
  });
}

// ------------------------------------------------------------------------------------------------------ drawing

const dirty = new Set();
let drawing = false;

/** A photo is not what its card shows any more. */
function changed(photo) {
  dirty.add(photo);
  draw();
}

/** Which cards are on the screen or near it: evidence is drawn on these, as on a thousand it would take seconds. */
const sight = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const photo = byId.get(target.dataset.id);
      if (!photo || photo.near === isIntersecting) continue;
      photo.near = isIntersecting;
      if (photo.near && photo.evidence) changed(photo);
    }
  },
  { rootMargin: "100%" },
);

/** Draw soon, and once for all that changes until then. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawNow();
  });
}

function drawNow() {
  for (const photo of dirty) {
    if (!byId.has(photo.id)) continue;
    const held = photo.card.contains(document.activeElement) && photo.card.querySelector(".verdict").contains(document.activeElement);
    paint(photo.card, photo);
    if (held) photo.card.firstElementChild.focus({ preventScroll: true });
    if (photo === active) allowTabs(photo, true);
  }
  const looked = dirty.has(viewed) && byId.has(viewed.id);
  dirty.clear();
  show($("welcome"), !photos.length);
  $("work").hidden = $("actions").hidden = $("keys-button").hidden = !photos.length;
  drawFacets();
  arrange();
  drawSummary();
  if (looked) view(viewed);
  else if (viewed) drawPlace();
}

/** Show a part of the page or not. The keyboard is not lost with one that goes away. */
function show(part, wanted) {
  if (!wanted && part.contains(document.activeElement)) $(viewed ? "viewer" : "main").focus({ preventScroll: true });
  part.hidden = !wanted;
}

const fitsStatus = (photo, wanted = filter.status) => wanted === "all" || status(photo) === wanted;
const fitsCategory = (photo) => !filter.category || category(photo) === filter.category;
const fitsText = (photo) =>
  !filter.text || [photo.name, category(photo) ?? "", STATUSES[status(photo)] ?? ""].some((words) => fold(words).includes(filter.text));

/** By what photos stood for when they were last put in order. */
const ORDERS = {
  added: () => 0,
  doubtful: (a, b) => a.ordered.probability - b.ordered.probability,
  confident: (a, b) => b.ordered.probability - a.ordered.probability,
  category: (a, b) => COLLATOR.compare(a.ordered.category, b.ordered.category),
};

function arrange() {
  const before = shown;
  for (const photo of photos) {
    if (viewed && photo.ordered) continue; // none changes its place while one goes through them
    photo.ordered = { probability: photo.result?.probability ?? -1, category: category(photo) ?? "\uffff" };
  }
  shown = photos.filter((photo) => fitsStatus(photo) && fitsCategory(photo) && fitsText(photo));
  shown.sort(ORDERS[filter.order]); // stable: otherwise in the order added
  const focused = active && active.card.contains(document.activeElement) ? document.activeElement : null;

  const keep = new Set(shown);
  for (const card of [...grid.children]) if (!keep.has(byId.get(card.dataset.id))) card.remove();
  shown.forEach((photo, i) => {
    if (grid.children[i] !== photo.card) grid.insertBefore(photo.card, grid.children[i] ?? null);
  });

  if (!keep.has(active)) {
    // The next photo that is still there takes the place of the one that went.
    const from = before.indexOf(active);
    const next = before.slice(from + 1).find((photo) => keep.has(photo)) ?? shown.at(-1) ?? null;
    activate(from < 0 ? (shown[0] ?? null) : next);
    if (focused) (active?.card.firstElementChild ?? $("main")).focus({ preventScroll: false });
  } else if (focused && document.activeElement !== focused) {
    focused.focus({ preventScroll: true });
  }
  show($("nothing"), !shown.length && photos.length > 0);
}

function drawFacets() {
  const inStatus = photos.filter((photo) => fitsCategory(photo) && fitsText(photo));
  facet($("statuses"), "status", Object.entries(STATUSES).map(([value, words]) => {
    const fitting = inStatus.filter((photo) => fitsStatus(photo, value)).length;
    return { value, words, count: fitting, hidden: value !== "all" && value !== filter.status && !photos.some((photo) => status(photo) === value) };
  }));
  const counts = new Map();
  let others = 0;
  for (const photo of photos) {
    const label = category(photo);
    if (!label) continue;
    const pair = counts.get(label) ?? [0, 0];
    counts.set(label, pair);
    if (fitsStatus(photo) && fitsText(photo)) pair[status(photo) === "unsure" ? 1 : 0] += 1;
  }
  for (const pair of counts.values()) others += pair[0] + pair[1];
  if (filter.category && !counts.has(filter.category)) counts.set(filter.category, [0, 0]);
  const rows = [...counts].sort(([a], [b]) => COLLATOR.compare(a, b));
  $("categories").hidden = !rows.length;
  facet($("categories"), "category", [
    { value: "", words: "Any", count: others },
    ...rows.map(([label, [sure, guessed]]) => ({ value: label, words: label, count: sure, guessed })),
  ]);
}

/** Radio buttons with counts. Rows are kept as they are, so that the focus is. */
function facet(fieldset, key, rows) {
  const known = new Map([...fieldset.querySelectorAll("label")].map((label) => [label.dataset.value, label]));
  for (const [value, label] of known) if (!rows.some((row) => row.value === value)) label.remove();
  let after = fieldset.querySelector("legend");
  for (const { value, words, count: number, guessed = 0, hidden = false } of rows) {
    let label = known.get(value);
    if (!label) {
      label = element("label", "facet");
      label.dataset.value = value;
      const input = element("input");
      Object.assign(input, { type: "radio", name: key, value });
      label.append(input, element("span", "words", words), element("span", "count"));
    }
    if (after.nextElementSibling !== label) after.after(label);
    after = label;
    label.hidden = hidden;
    label.querySelector("input").checked = filter[key] === value;
    const counter = label.querySelector(".count");
    const text = guessed ? `${number}+${guessed}` : String(number);
    if (counter.dataset.text === text) continue;
    counter.dataset.text = text;
    counter.replaceChildren(element("span", "", String(number)));
    if (guessed) {
      const extra = element("span", "guessed", `+${guessed}`);
      extra.append(element("span", "unseen", " not sure"));
      counter.append(extra);
      label.title = `${number} ${value}, and ${guessed} where the model is not sure`;
    } else {
      label.removeAttribute("title");
    }
  }
}

function drawSummary() {
  const tally = { waiting: 0, sure: 0, unsure: 0, failed: 0, corrected: 0 };
  for (const photo of photos) tally[status(photo)] += 1;
  const pending = photos.filter((photo) => !photo.result && !photo.error).length;
  const done = photos.length - pending;
  const some = shown.length < photos.length ? `${shown.length} of ` : "";
  $("results-heading").textContent = some + count(photos.length, "photo", "photos");
  const parts = [];
  if (tally.sure) parts.push(`${tally.sure} sure`);
  if (tally.unsure) parts.push(`${tally.unsure} not sure`);
  if (tally.corrected) parts.push(`${tally.corrected} corrected`);
  if (tally.failed) parts.push(`${tally.failed} failed`);
  const again = photos.filter((photo) => photo.error?.again).length;
  show($("again"), again > 1); // one has its own button
  $("again").textContent = `Try ${again} again`;
  $("tally").textContent = pending ? `${done} of ${photos.length} classified` : parts.join(", ");
  $("progress").max = Math.max(1, photos.length);
  $("progress").value = done;
  $("progress").classList.toggle("done", !pending);
  $("evidence-switch").hidden = !photos.some((photo) => photo.result?.evidence);
  $("legend").hidden = !shown.some((photo) => photo.evidence && photo.result?.evidence && photo.preview);
  document.title = pending ? `${done} of ${photos.length} – Clothing classifier` : "Clothing classifier";
}

const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

// --------------------------------------------------------------------------------------------- what is said

let sayTimer = 0;
let unsaid = [];

/** Say something to those who cannot see the page; what comes close together is said together. */
function say(text) {
  unsaid.push(text);
  clearTimeout(sayTimer);
  sayTimer = setTimeout(() => {
    // Beside an open dialog, nothing is read out.
    $($("viewer").open ? "viewer-live" : "live").textContent = unsaid.join(" ");
    unsaid = [];
  }, 250);
}

function sayShown() {
  say(`${count(shown.length, "photo", "photos")} shown.`);
}

let lastTold = 0;

/** A photo has its answer or its error. All are told of together at the end, and now and then how far they are. */
function settled(photo) {
  changed(photo);
  if (!byId.has(photo.id)) return;
  const pending = photos.filter((one) => !one.result && !one.error).length;
  if (!pending) {
    const tally = (kind) => photos.filter((one) => status(one) === kind).length;
    const parts = [`${tally("sure")} sure`, `${tally("unsure")} not sure`];
    if (tally("corrected")) parts.push(`${tally("corrected")} corrected`);
    if (tally("failed")) parts.push(`${tally("failed")} failed`);
    say(`Done: ${parts.join(", ")}.`);
    lastTold = performance.now();
  } else if (performance.now() - lastTold > 8e3) {
    if (lastTold) say(`${photos.length - pending} of ${photos.length} classified.`);
    lastTold = performance.now();
  }
}

let toastTimer = 0;

function toast(text, undoable = false) {
  $("toast-text").textContent = text;
  $("toast").querySelector("button").hidden = !undoable;
  ($("viewer").open ? $("viewer") : document.body).append($("toast")); // beside an open dialog, nothing can be clicked
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hideToast, TOAST);
}

function hideToast() {
  if ($("toast").matches(":hover, :focus-within")) toastTimer = setTimeout(hideToast, TOAST / 2);
  else $("toast").hidden = true;
}

// ------------------------------------------------------------------------------------------- correct and undo

function correct(photo, label) {
  const said = photo.result?.sure ? photo.result.label : null;
  const answer = label === said ? null : label; // what the model is sure of needs no correction
  if (answer === photo.answer) return;
  setAnswer(photo, answer);
  const words = answer === null ? `${short(photo)} is ${label} again.` : `${short(photo)} is now ${label}.`;
  toast(words, true);
  say(words);
}

function setAnswer(photo, answer) {
  const before = photo.answer;
  const set = (value) => {
    photo.answer = value;
    saved = false;
    changed(photo);
    return photo;
  };
  past.push(() => set(before));
  set(answer);
}

function remove(photo) {
  const place = photos.indexOf(photo);
  const next = nextId;
  takeOut(photo);
  const pending = !photo.result && !photo.error;
  past.push(() => {
    // It may have been added again since; what a person did to that one is undone by now.
    for (const twin of photos.filter((one) => one.origin === photo.origin && Number(one.id) >= next)) takeOut(twin);
    const names = new Set(photos.map((one) => one.name));
    if (names.has(photo.name)) {
      photo.name = tellApart(photo.name, names); // another has come that is called so
      photo.card = createCard(photo);
      sight.observe(photo.card);
    }
    photos.splice(Math.min(place, photos.length), 0, photo);
    byId.set(photo.id, photo);
    if (photo.preview === undefined) makePreview(photo);
    if (pending && !photo.result && !photo.error) service.send([photo]);
    saved = false;
    changed(photo);
    return photo;
  });
  const words = `${short(photo)} was taken out.`;
  toast(words, true);
  say(words);
  drawNow(); // or the next press of the key would meet a card that is gone
}

function takeOut(photo) {
  photos.splice(photos.indexOf(photo), 1);
  byId.delete(photo.id);
  service.forget([photo]);
  if (photo.preview) URL.revokeObjectURL(photo.preview.url);
  photo.preview = undefined; // made anew should the photo come back
  photo.card.querySelector("img").removeAttribute("src"); // or it might be asked for again, and be gone
}

function undo() {
  const back = past.pop();
  if (!back) return;
  const photo = back();
  show($("toast"), false);
  say(`Undone: ${inWords(photo)}`);
  drawNow();
  if (viewed && !byId.has(viewed.id)) view(photo); // which has taken its place
  if (shown.includes(photo)) {
    activate(photo);
    if (viewed) view(photo);
    else if (!document.querySelector("dialog[open]")) photo.card.firstElementChild.focus();
  }
}

function clearAll() {
  service.forget(photos);
  for (const photo of photos) if (photo.preview) URL.revokeObjectURL(photo.preview.url);
  photos = [];
  byId.clear();
  dirty.clear();
  past.length = 0;
  saved = true;
  Object.assign(filter, { status: "all", category: "", text: "" });
  $("search").value = "";
  $("toast").hidden = true;
  drawNow();
  say("All photos are cleared.");
  document.querySelector("#welcome [data-do=pick]").focus();
}

function short(photo) {
  return photo.name.slice(photo.name.lastIndexOf("/") + 1);
}

function choose(photo, typed = "") {
  if (!service.model) {
    const words = "There are no categories to choose from before the service answers.";
    toast(words);
    say(words);
    return;
  }
  const beside = viewed ? $("viewer-verdict") : photo.card;
  ask(photo, { labels: service.model.card.labels, typed, beside, choose: (label) => correct(photo, label) });
}

function download() {
  const now = new Date();
  const stamp = new Date(now - now.getTimezoneOffset() * 60e3).toISOString().slice(0, 16).replace("T", "-").replace(":", "");
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([toCsv(photos)], { type: "text/csv;charset=utf-8" }));
  link.download = `clothing-${stamp}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60e3); // the browser may not have begun to read it
  saved = true;
  say(`A table of ${count(photos.length, "photo", "photos")} is downloaded.`);
}

addEventListener("beforeunload", (event) => {
  if (!saved && (photos.length > FEW || photos.some((photo) => photo.answer !== null))) event.preventDefault();
});

// ---------------------------------------------------------------------------------------- pointing and typing

function act(photo, name, target) {
  if (name === "open") openViewer(photo);
  else if (name === "evidence") setEvidence([photo], !photo.evidence);
  else if (name === "change") choose(photo);
  else if (name === "remove") remove(photo);
  else if (name === "again") tryAgain([photo]);
  else if (name === "restore") restore(photo);
  else if (name === "guess") correct(photo, target.dataset.label);
}

/** Take a person's answer back, whatever was done since. */
function restore(photo) {
  setAnswer(photo, null);
  say(`Undone: ${inWords(photo)}`);
}

function setEvidence(some, wanted) {
  for (const photo of some) {
    photo.evidence = wanted;
    changed(photo);
  }
}

function activate(photo) {
  if (active === photo) return;
  if (active) allowTabs(active, false);
  active = photo;
  if (active) allowTabs(active, true);
}

/** Only one card's controls are reached by Tab: two hundred would be a thousand stops. */
function allowTabs(photo, allowed) {
  for (const control of photo.card.querySelectorAll("article, button")) control.tabIndex = allowed ? 0 : -1;
}

grid.addEventListener("focusin", (event) => activate(byId.get(event.target.closest(".photo")?.dataset.id) ?? active));

grid.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  const photo = byId.get(event.target.closest(".photo")?.dataset.id);
  if (!photo) return;
  activate(photo);
  if (button) act(photo, button.dataset.act, button);
  else if (!getSelection()?.toString()) photo.card.firstElementChild.focus();
});

grid.addEventListener("keydown", (event) => {
  const photo = byId.get(event.target.closest(".photo")?.dataset.id);
  if (!photo || event.altKey || event.ctrlKey || event.metaKey) return;
  const at = shown.indexOf(photo);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const steps = {
    ArrowRight: 1,
    ArrowLeft: -1,
    ArrowDown: columns,
    ArrowUp: -columns,
    Home: -at,
    End: shown.length - 1 - at,
  };
  if (event.key in steps) {
    const next = shown[at + steps[event.key]];
    next?.card.firstElementChild.focus();
    next?.card.scrollIntoView({ block: "nearest" });
  } else if (event.key === "Escape") {
    photo.card.firstElementChild.focus();
  } else if (event.target === photo.card.firstElementChild && event.key === " ") {
    openViewer(photo);
  } else if (event.key === "Enter" && event.target !== photo.card.firstElementChild) {
    return; // a button's own
  } else if (!photoKey(photo, event)) {
    return;
  }
  event.preventDefault();
});

/** Keys that mean the same on a card and in the large view, which shows as many guesses as `count` says. */
function photoKey(photo, event, count) {
  const guess = /^[1-9]$/.test(event.key) && guesses(photo, count)[event.key - 1];
  if (takesOut(event)) remove(photo);
  else if (event.key === "Enter") choose(photo);
  else if (guess) correct(photo, guess.label);
  else if (/^\p{L}$/u.test(event.key)) choose(photo, event.key);
  else return false;
  return true;
}

/** Of a Mac's keyboard, the key "delete" is Backspace. */
function takesOut(event) {
  return event.key === "Delete" || event.key === "Backspace";
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=radio], [type=checkbox]), select, textarea");
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z" && !typing && past.length) {
    event.preventDefault();
    undo();
  } else if (event.key === "?" && !typing && photos.length && !document.querySelector("dialog[open]:not(#viewer)")) {
    event.preventDefault();
    $("keys").showModal();
  }
});

const DOINGS = {
  pick: () => $("pick").click(),
  folder: () => $("folder").click(),
  camera: () => $("camera").click(),
  clear() {
    const corrections = photos.filter((photo) => photo.answer !== null).length;
    $("sure-text").textContent = corrections
      ? `${count(photos.length, "photo", "photos")} and ${count(corrections, "correction", "corrections")} of yours will be gone from this page${saved ? "" : ", and you have not downloaded them"}.`
      : `${count(photos.length, "photo", "photos")} will be gone from this page. Your files stay as they are.`;
    $("sure").showModal();
  },
  download,
  model: () => $("model").showModal(),
  keys: () => $("keys").showModal(),
  undo,
  unfilter() {
    Object.assign(filter, { status: "all", category: "", text: "" });
    $("search").value = "";
    draw();
  },
  silent: () => service.now(),
  stopped: () => tryAgain(photos.filter((photo) => photo.error?.again)),
  locked: () => askForKey(false),
};

document.addEventListener("click", (event) => {
  DOINGS[event.target.closest("[data-do]")?.dataset.do]?.();
  const closed = event.target.closest("[data-close]")?.dataset.close;
  if (closed) $(closed).close();
  if (event.target.matches?.("dialog.sheet, dialog.box, dialog.viewer") && isBeside(event.target, event)) event.target.close();
});
$("sure-yes").addEventListener("click", () => {
  $("sure").close();
  clearAll();
});

let searchTimer = 0;
$("search").addEventListener("input", () => {
  filter.text = fold($("search").value);
  draw();
  clearTimeout(searchTimer);
  searchTimer = setTimeout(sayShown, 500); // once for all letters
});
$("sort").addEventListener("change", () => {
  filter.order = $("sort").value;
  draw();
});
for (const id of ["statuses", "categories"]) {
  $(id).addEventListener("change", (event) => {
    filter[event.target.name] = event.target.value;
    drawNow();
    scrollTo({ top: 0 });
    sayShown();
  });
}
$("evidence").addEventListener("change", () => setEvidence(photos, $("evidence").checked));
addEventListener("online", () => {
  const { do: state } = $("banner-button").dataset;
  if (!$("banner").hidden && (state === "silent" || state === "stopped")) DOINGS[state]();
});

// --------------------------------------------------------------------------------------------- the large view

const VIEWED = 5; // guesses
let viewedUrl = "";
let viewedPlace = 0; // among those shown; where the filters let it through no longer, of the one that follows it

function openViewer(photo) {
  view(photo);
  $("toast").hidden = true;
  $("viewer").showModal();
  $("viewer").focus(); // browsers would take the first button, and lose the keyboard where that is turned off
}

function view(photo) {
  const given = photo.preview?.given && photo.preview.url;
  if (photo !== viewed || (given && viewedUrl !== given)) {
    viewed = photo;
    URL.revokeObjectURL(viewedUrl);
    viewedUrl = given || URL.createObjectURL(photo.file);
    $("viewer-image").src = viewedUrl;
    $("viewer-image").alt = short(photo);
    delete $("viewer-heat").dataset.of;
    activate(photo);
  }
  $("viewer-image").hidden = photo.preview === null;
  $("viewer-none").hidden = photo.preview !== null;
  $("viewer-name").textContent = photo.name;
  drawPlace();
  const held = $("viewer-verdict").contains(document.activeElement);
  $("viewer-verdict").replaceChildren(...verdict(photo, { count: VIEWED }));
  const change = element("button", "button small", "Change the category");
  change.type = "button";
  change.dataset.act = "change";
  $("viewer-verdict").append(change);
  $("viewer-verdict").dataset.status = $("viewer").dataset.status = status(photo);
  for (const button of $("viewer-verdict").querySelectorAll("button")) button.tabIndex = 0;
  if (held) $("viewer").focus();
  const evident = Boolean(photo.result?.evidence && photo.preview);
  $("viewer-evidence-label").hidden = !evident;
  $("viewer-evidence").checked = photo.evidence;
  $("viewer-evidence-text").textContent = `Where it sees ${photo.result?.label ?? ""}`;
  $("viewer").classList.toggle("with-heat", evident && photo.evidence);
  showHeat($("viewer-heat"), photo, evident && photo.evidence, photo.preview);
}

function drawPlace() {
  const at = shown.indexOf(viewed);
  if (at >= 0) viewedPlace = at;
  $("viewer-place").textContent = at < 0 ? "" : `${at + 1} of ${shown.length}`;
  for (const [id, by] of [["viewer-before", -1], ["viewer-after", 1]]) {
    const ends = !beside(by);
    if (ends && document.activeElement === $(id)) $("viewer").focus();
    $(id).disabled = ends;
  }
}

/** The photo before (-1) or after (1) the one in the large view. */
function beside(by) {
  return shown[shown[viewedPlace] === viewed || by < 0 ? viewedPlace + by : viewedPlace];
}

// The browser tells of a close a moment later, and until then gives the focus to the card that opened the view.
function closeViewer() {
  $("viewer").close();
  leaveViewer();
}

function leaveViewer() {
  if (!viewed || $("viewer").open) return;
  URL.revokeObjectURL(viewedUrl);
  $("viewer-image").removeAttribute("src");
  document.body.append($("toast"));
  const photo = viewed;
  viewed = null;
  drawNow();
  const target = shown.includes(photo) ? photo : active;
  (target?.card.firstElementChild ?? $("main")).focus();
}

function step(by) {
  const next = beside(by);
  if (!next) return;
  view(next);
  say(inWords(next));
}

$("viewer-before").addEventListener("click", () => step(-1));
$("viewer-after").addEventListener("click", () => step(1));
$("viewer-close").addEventListener("click", closeViewer);
$("viewer-evidence").addEventListener("change", () => setEvidence([viewed], $("viewer-evidence").checked));
$("viewer-verdict").addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) act(viewed, button.dataset.act, button);
});
$("viewer").addEventListener("keydown", (event) => {
  if (event.target.closest("dialog") !== $("viewer") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === " " && event.target === $("viewer")) closeViewer();
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else if (takesOut(event)) {
    remove(viewed);
    const next = beside(1) ?? beside(-1);
    if (next) view(next);
    else closeViewer();
  } else if (event.key === "Enter" || !photoKey(viewed, event, VIEWED)) return;
  event.preventDefault();
});
$("viewer").addEventListener("cancel", (event) => {
  event.preventDefault();
  closeViewer();
});
$("viewer").addEventListener("close", leaveViewer);

service.start();
