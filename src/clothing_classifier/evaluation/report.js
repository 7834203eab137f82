"use strict";

// Everything is on the page without this script; it hides, sorts and reads aloud what is there.

for (const box of document.querySelectorAll(".chips input")) {
  box.addEventListener("change", () => {
    for (const part of document.querySelectorAll(`[data-series="${box.value}"]`)) {
      part.toggleAttribute("data-off", !box.checked);
    }
  });
  box.checked = true;
}
document.documentElement.classList.add("live");

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const written = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    // Numbers down and up, names up and down, and back to the order in which the page came.
    const named = written.every((row) => row.cells[column]?.dataset.value === undefined);
    const orders = named ? ["ascending", "descending", null] : ["descending", "ascending", null];
    button.addEventListener("click", () => {
      const next = orders[(orders.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next);
      const turn = next === "ascending" ? 1 : -1;
      const rows = [...written];
      if (next) rows.sort((a, b) => compare(a.cells[column], b.cells[column], turn));
      body.append(...rows);
    });
  });
}

function compare(a, b, turn) {
  const [x, y] = [a, b].map((cell) => cell?.dataset.value);
  if (x !== undefined && y !== undefined) return turn * (x - y);
  if (x !== undefined || y !== undefined) return x === undefined ? 1 : -1;
  const [s, t] = [a, b].map((cell) => cell?.textContent ?? "");
  if (!s || !t) return (s ? 0 : 1) - (t ? 0 : 1);
  return turn * s.localeCompare(t);
}

const chooser = document.querySelector(".chooser");
const reading = document.querySelector(".reading");
if (chooser) {
  const select = chooser.querySelector("select");
  const figures = [...document.querySelectorAll(".matrix-figure")];
  const choose = () => {
    for (const figure of figures) figure.toggleAttribute("data-off", figure.id !== select.value);
  };
  chooser.hidden = figures.length < 2;
  reading.hidden = false;
  select.selectedIndex = 0;
  select.addEventListener("change", choose);
  choose();
  const read = (event) => {
    const cell = event.target.closest(".matrix td");
    if (!cell) return;
    if (!cell.dataset.said && cell.title) {
      cell.dataset.said = cell.title;
      cell.removeAttribute("title"); // the sentence below the matrix says it, at once and on a phone too
    }
    if (cell.dataset.said) reading.textContent = cell.dataset.said + ".";
  };
  document.querySelector(".matrices").addEventListener("pointerover", read);
  document.querySelector(".matrices").addEventListener("click", read);
  document.querySelector(".matrices").addEventListener("focusin", read);
  // One stop for the tabulator, and the arrows from there: 289 stops would be a wall.
  for (const table of document.querySelectorAll(".matrix")) {
    const first = table.querySelector("tbody td");
    if (first) first.tabIndex = 0;
    table.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      const cell = event.target.closest("td");
      if (!step || !cell) return;
      const next = table.tBodies[0].rows[cell.parentElement.sectionRowIndex + step[0]]?.cells[cell.cellIndex + step[1]];
      if (next?.tagName !== "TD") return;
      event.preventDefault();
      cell.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  }
}
