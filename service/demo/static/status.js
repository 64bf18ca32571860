// The corner that shows the service itself: its models, their certificates, and its own metrics.

import { el, find } from "./dom.js";
import { getJson, getText } from "./api.js";
import { drift, p99, rate, read } from "./metrics.js";

const PAUSE_MS = 2000;
// Figures are of the last minute.
const KEPT = 30;
const scored = d3.format(",.4~r");
const brief = d3.format(",.2~r");
const small = d3.format(".2~g");

/** Shows the models, then asks for the metrics every two seconds while the page is seen; returns how to begin anew. */
export function watch() {
  let timer = 0;
  let readings = [];
  let boxes = new Map();
  const look = async () => {
    clearTimeout(timer);
    if (!document.hidden) await step();
    timer = setTimeout(look, PAUSE_MS);
  };
  const step = async () => {
    try {
      const now = { at: performance.now(), models: read(await getText("metrics")) };
      readings = [...readings.slice(-KEPT), now];
      for (const [name, box] of boxes) showFigures(box, readings, name);
      say(span(readings), "on");
    } catch (error) {
      say(
        error.status === 403 ? "This key may not read the metrics; it lacks the role “metrics”." : error.message,
        error.status ? "" : "off",
      );
    }
  };
  document.addEventListener("visibilitychange", look);
  return async (models) => {
    readings = [];
    boxes = new Map(models.map((model) => [model.name, makeBox(model)]));
    find("#models").replaceChildren(...[...boxes.values()].map(({ whole }) => whole));
    await look();
  };
}

/** Which time all figures are of: as far back as was looked, one minute at most. */
function span(readings) {
  const seconds = Math.round((readings.at(-1).at - readings[0].at) / 1000);
  return `${seconds < 2 ? "Figures follow" : `Figures of the last ${seconds} seconds`}, from its own metrics.`;
}

export function say(sentence, pulse) {
  find("#status-note").textContent = sentence;
  find("#pulse").className = `pulse ${pulse}`;
}

function makeBox(model) {
  const { score } = model;
  const figures = el("p", { class: "figures" }, "…");
  const drifting = el("p", {}, "");
  const facts = el("dl");
  const certificate = el(
    "details",
    { ontoggle: () => facts.children.length || showCertificate(model.name, facts) },
    el("summary", {}, `✓ certified, ${model.digest.slice(0, 12)}`),
    facts,
  );
  const unit = score.unit === "%" ? "%" : ` ${score.unit}`;
  const whole = el(
    "section",
    { class: "one", "data-model": model.name },
    el("h3", {}, model.name, el("span", {}, model.version)),
    el("p", {}, `${score.metric} ${scored(score.test)}${unit === "%" ? " %" : unit}`),
    figures,
    drifting,
    certificate,
  );
  return { whole, figures, drifting };
}

async function showCertificate(name, facts) {
  const { certificate: proof, digest, provider, data, licence } = await getJson(`v1/models/${name}`);
  const { parity, batch_invariance: alone, score } = proof;
  const rows = [
    ["manifest", digest],
    ["ONNX file", proof.model_sha256],
    [
      "parity",
      `${parity.instances} requests; at most ${small(Math.max(...Object.values(parity.max_abs_diff)))} from torch`,
    ],
    [
      "batches",
      `${alone.requests} requests, each alone and in company: ${alone.bit_identical ? "the same bits" : `at most ${small(alone.max_abs_diff)} apart`}`,
    ],
    ["test set", `${d3.format(",")(score.instances)} instances, ${score.label_changes} labels changed by the export`],
    ["data", `${data} (${licence.licence})`],
    ["runs on", provider],
  ];
  facts.replaceChildren(...rows.flatMap(([term, text]) => [el("dt", {}, term), el("dd", {}, text)]));
}

function showFigures({ figures, drifting }, readings, name) {
  const now = readings.at(-1);
  const then = readings[0];
  const [current, earlier] = [now.models.get(name), then.models.get(name)];
  if (!current) return;
  const seconds = (now.at - then.at) / 1000;
  const perSecond = earlier && seconds ? brief(rate(earlier, current, seconds)) : "–";
  figures.replaceChildren(
    el("span", {}, el("b", {}, perSecond), " req/s"),
    el("span", {}, "p99 ", el("b", {}, bucket(earlier && p99(earlier, current)))),
  );
  const { text, isAlarm } = drift(current);
  drifting.textContent = isAlarm ? `⚠ unlike its training data: ${text}` : `drift: ${text}`;
  drifting.className = isAlarm ? "alarm" : "";
}

/** A histogram's bucket in milliseconds. */
function bucket(found) {
  if (!found) return "–";
  const [above, upTo] = found.map((seconds) => brief(1000 * seconds));
  if (found[1] === Infinity) return `over ${above} ms`;
  return found[0] ? `${above}–${upTo} ms` : `under ${upTo} ms`;
}
