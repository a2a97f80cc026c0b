// What the page can do besides being read: one update of the heat map at a time, the numbers of a
// mark on a tap or by the keyboard, and all details in print. Without it everything is still there.
"use strict";

document.documentElement.classList.add("js");

for (const steps of document.querySelectorAll(".steps")) {
  const row = steps.querySelector(".slider-row");
  const all = [...steps.querySelectorAll(".step")];
  if (!row) {
    all.forEach((step) => step.classList.add("shown"));
    continue;
  }
  const slider = row.querySelector("input");
  const show = () => {
    const before = steps.querySelector(".step.shown .scroll");
    const chosen = all[slider.valueAsNumber];
    all.forEach((step) => step.classList.toggle("shown", step === chosen));
    if (before) chosen.querySelector(".scroll").scrollLeft = before.scrollLeft;
    slider.setAttribute("aria-valuetext", chosen.querySelector(".subtitle").textContent);
  };
  row.hidden = false;
  slider.value = slider.max;
  slider.addEventListener("input", show);
  show();
}

// The browser's own hints need a mouse; ours take their words.
for (const title of document.querySelectorAll("body svg title")) {
  const mark = title.parentNode;
  if (title.textContent) mark.dataset.tip = title.textContent;
  title.remove();
}
for (const hinted of document.querySelectorAll("body [title]")) {
  hinted.dataset.tip = hinted.title;
  hinted.removeAttribute("title");
}

const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "tooltip");
tip.id = "tip";
document.body.append(tip);

// What the tooltip is about, and where that was when it was said.
let about = null;
const placeOf = (mark) => {
  const { left, top } = mark.getBoundingClientRect();
  return { mark, left, top };
};
const hide = () => {
  about = null;
  tip.classList.remove("shown");
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
};
const say = (mark, x, y) => {
  hide();
  about = placeOf(mark);
  tip.textContent = mark.dataset.tip;
  const { width, height } = tip.getBoundingClientRect();
  const left = Math.min(Math.max(12, x - width / 2), document.documentElement.clientWidth - width - 12);
  tip.style.left = `${left}px`;
  tip.style.top = `${y - height - 12 < 4 ? y + 20 : y - height - 12}px`;
  tip.classList.add("shown");
};
const marked = (event) =>
  event.target instanceof Element ? event.target.closest("[data-tip]") : null;
const follow = (event) => {
  const mark = marked(event);
  if (mark) say(mark, event.clientX, event.clientY);
  else hide();
};
document.addEventListener("pointermove", (event) => {
  if (event.pointerType === "mouse") follow(event);
});
document.addEventListener("click", follow);
const sayOf = (cell) => {
  const place = cell.getBoundingClientRect();
  say(cell, place.left + place.width / 2, place.top);
  cell.setAttribute("aria-describedby", "tip");
};
document.addEventListener("focusin", (event) => {
  const cell = event.target.closest(".heat td[data-tip]");
  if (cell?.matches(":focus-visible")) sayOf(cell);
});
// Going to a cell by keyboard may scroll its table: what it says moves along. A tap may come before
// the end of a scroll that left its cell where it was.
const move = () => {
  const cell = document.querySelector("[aria-describedby=tip]");
  if (cell) return sayOf(cell);
  const now = about && placeOf(about.mark);
  if (!now || now.left !== about.left || now.top !== about.top) hide();
};
document.addEventListener("scroll", move, { capture: true, passive: true });
document.addEventListener("focusout", hide);

const ways = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
for (const heat of document.querySelectorAll(".heat")) {
  const rows = [...heat.tBodies[0].rows].map((row) => [...row.querySelectorAll("td[data-tip]")]);
  rows.flat().forEach((cell, i) => (cell.tabIndex = i ? -1 : 0));
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
  const cell = event.target instanceof Element ? event.target.closest(".heat td[data-tip]") : null;
  const way = ways[event.key];
  if (!cell || !way) return;
  const body = cell.closest("tbody");
  const row = [...body.rows].indexOf(cell.parentNode) + way[0];
  const next = body.rows[row]?.cells[cell.cellIndex + way[1]];
  if (!next?.dataset.tip) return;
  event.preventDefault();
  cell.tabIndex = -1;
  next.tabIndex = 0;
  next.scrollIntoView({ block: "nearest", inline: "center" });
  next.focus({ preventScroll: true, focusVisible: true });
});

let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((part) => (part.open = true));
});
addEventListener("afterprint", () => opened.forEach((part) => (part.open = false)));
