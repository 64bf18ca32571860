// The page: tabs that open when they are first looked at, the key, and the service's state.

import { calmly, el, find, tabs } from "./dom.js";
import { getJson, onKeyWanted, useKey } from "./api.js";
import { say, watch } from "./status.js";
import * as citation from "./citation.js";
import * as image from "./image.js";
import * as molecule from "./molecule.js";
import * as tagging from "./tagging.js";
import * as viewcount from "./viewcount.js";

const TABS = { viewcount, tagging, image, molecule, citation };
const opened = new Map();
const begin = watch();
let models = [];
let reason = ""; // why there are none

/** Open a tab once; a tab of several is the one of them that is seen. */
async function show(id) {
  const panel = document.getElementById(id);
  const inner = panel.querySelector(":scope > [role=tablist] [aria-selected=true]");
  if (inner) {
    await show(inner.getAttribute("aria-controls"));
    return;
  }
  if (opened.has(id)) return;
  if (!models.length) {
    if (reason) refuse(panel, reason);
    return;
  }
  const form = find("form", panel);
  const mine = models.filter(({ task }) => task === form.dataset.task);
  opened.set(id, null);
  find(".fault", panel).hidden = true;
  panel.classList.remove("closed");
  if (!mine.length) {
    refuse(panel, "The service has no model of this kind.");
    return;
  }
  try {
    opened.set(id, await TABS[id].open(panel, mine));
  } catch (error) {
    console.error(error);
    opened.delete(id);
    refuse(panel, error.message);
  }
}

/** Show nothing of a tab but why it is closed. */
function refuse(panel, sentence) {
  panel.classList.add("closed");
  const box = find(".fault", panel);
  box.replaceChildren(el("p", {}, sentence));
  box.hidden = false;
}

const select = tabs(find("main > [role=tablist]"), (id) => {
  const inner = find(`#${id} > [role=tablist] [aria-selected=true]`);
  history.replaceState(null, "", `#/${inner?.getAttribute("aria-controls") ?? id}`);
  show(id);
});
const selectGraph = tabs(find("#graph > [role=tablist]"), (id) => {
  if (!find("#graph").hidden) history.replaceState(null, "", `#/${id}`);
  show(id);
});

/** Show the tab that the address names; with the slash it is no element's name, to which a browser would scroll. */
function follow() {
  const wanted = location.hash.slice(2);
  if (wanted === "molecule" || wanted === "citation") {
    selectGraph(wanted); // first, or the other one would be opened as well
    select("graph");
  } else {
    select(wanted in TABS || wanted === "graph" ? wanted : "viewcount");
  }
}

async function start() {
  try {
    models = (await getJson("v1/models")).models;
  } catch (error) {
    reason = error.message;
    say(reason, "off");
    follow();
    return;
  }
  const again = [...opened.values()].filter(Boolean);
  begin(models);
  follow();
  for (const talk of again) talk.ask();
}

// A file that misses its field would be opened by the browser in the page's place.
for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
onKeyWanted((isWanted) => {
  const field = find("#key");
  find(".key").classList.toggle("wanted", isWanted);
  field.setAttribute("aria-invalid", isWanted);
  if (isWanted && document.activeElement === document.body) field.focus();
});
find("#key").addEventListener(
  "input",
  calmly(() => {
    useKey(find("#key").value);
    start();
  }, 300),
);
document.addEventListener("versions", () =>
  getJson("v1/models").then(
    (found) => begin(found.models),
    (error) => say(error.message, "off"),
  ),
);
addEventListener("hashchange", follow);
start();
