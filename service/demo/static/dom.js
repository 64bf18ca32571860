// Elements, and text in them: nothing is ever parsed as HTML, so nothing that a model or a file says can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const find = (selector, within = document) => within.querySelector(selector);

/** An HTML element with properties (`class`, `dataset`, `on…`, attributes) and children. */
export function el(name, properties = {}, ...children) {
  return dress(document.createElement(name), properties, children);
}

/** The same for SVG. */
export function svg(name, properties = {}, ...children) {
  return dress(document.createElementNS(SVG, name), properties, children);
}

function dress(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Options of a select, the first chosen; `entries` are [value, text]. */
export function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
}

/** Calls `work` when nothing has happened for a moment. */
export function calmly(work, pause = 150) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, pause);
  };
}

/** Files that are dropped on `zone`, one at a time. */
export function takeDrops(zone, take) {
  const show = (is) => (event) => {
    event.preventDefault();
    zone.classList.toggle("dropping", is);
  };
  zone.addEventListener("dragover", show(true));
  zone.addEventListener("dragleave", show(false));
  zone.addEventListener("drop", (event) => {
    show(false)(event);
    if (event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}

/** Tabs by mouse and by keyboard, as the ARIA Authoring Practices have them; calls `shown` with the panel's id. */
export function tabs(list, shown) {
  const buttons = [...list.querySelectorAll("[role=tab]")];
  const show = (button) => {
    for (const one of buttons) {
      const is = one === button;
      one.setAttribute("aria-selected", is);
      one.tabIndex = is ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = !is;
    }
    shown(button.getAttribute("aria-controls"));
  };
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[role=tab]");
    if (button) show(button);
  });
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -buttons.indexOf(document.activeElement), End: -1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = event.key === "End" ? 0 : buttons.indexOf(document.activeElement);
    const next = buttons[(from + steps[event.key] + buttons.length) % buttons.length];
    next.focus();
    show(next);
  });
  return (panel) => show(buttons.find((one) => one.getAttribute("aria-controls") === panel) ?? buttons[0]);
}

/** Rows of a table; the first is the head. A cell is text or an element. */
export function fillTable(table, [head, ...rows]) {
  const cells = (row, name) => row.map((cell) => el(name, name === "th" ? { scope: "col" } : {}, cell));
  table.replaceChildren(
    el("thead", {}, el("tr", {}, ...cells(head, "th"))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...cells(row, "td")))),
  );
}

/** Probabilities as bars, the likeliest marked. */
export function fillBars(list, names, scores) {
  const best = scores.indexOf(Math.max(...scores));
  list.replaceChildren(
    ...names.map((name, place) => {
      const share = `${(100 * scores[place]).toFixed(1)} %`;
      const bar = el("span", { class: "track" }, el("i", { style: { width: `${100 * scores[place]}%` } }));
      return el(
        "li",
        { class: place === best ? "best" : "" },
        el("span", {}, readable(name)),
        bar,
        el("span", { class: "value" }, share),
      );
    }),
  );
}

/** Cora's fields have underscores for spaces. */
export const readable = (name) => name.replaceAll("_", " ");
