// Papers: one of the model's own graph, its neighbours, its field, and whom it listened to.

import { calmly, el, fillBars, fillTable, find, readable, svg } from "./dom.js";
import { Conversation, Mistake } from "./conversation.js";
import { headChoices, headMean } from "./heads.js";
import { emphasis, ramp } from "./heat.js";
import { jsonRequest } from "./request.js";

const [WIDTH, HEIGHT] = [480, 400];
const MOST_DRAWN = 36;
const IN_A_RING = 18;
const hue = (place, all) => String(Math.round((360 * place) / all + 210) % 360);

export async function open(panel, models) {
  const field = find("#paper", panel);
  const seen = { paper: 0, neighbours: [], prediction: null, assets: null };
  const talk = new Conversation(panel, models, {
    request: async (model) => {
      const assets = await talk.page("/assets", model);
      const paper = readPaper(field.value, assets);
      Object.assign(seen, { paper, assets, neighbours: neighboursOf(assets, paper) });
      const { explains } = await talk.page("", model);
      return jsonRequest({ node_ids: [paper, ...seen.neighbours] }, explains ? { explain: true } : {});
    },
    show: (prediction) => {
      seen.prediction = prediction;
      headChoices(find("#paper-head"), seen.assets.heads);
      show(seen, go);
    },
    place: ([name, number]) => (name === "node_ids" && number === 0 ? `Paper ${field.value}` : ""),
  });
  const go = (paper) => {
    field.value = paper;
    talk.ask();
  };
  field.addEventListener(
    "input",
    calmly(() => talk.ask()),
  );
  find("#paper-head", panel).addEventListener("change", () => seen.prediction && show(seen, go));
  find("#any-paper", panel).addEventListener("click", async () => {
    const { papers } = await talk.page("/assets");
    go(Math.floor(Math.random() * papers.length));
  });
  const { papers, links } = await talk.page("/assets");
  if (papers.length) field.value = startingPaper(links);
  talk.ask();
  return talk;
}

function readPaper(text, { papers }) {
  if (!papers.length)
    throw new Mistake("This model holds no graph of its own. Ask it by its API, with words and edges.");
  const range = `the papers are numbered from 0 to ${papers.length - 1}`;
  if (!/^\d{1,9}$/.test(text.trim())) throw new Mistake(`“${text}” is not a paper's number; ${range}.`);
  return Number(text);
}

/** A paper with as many neighbours as are still easy to see. */
function startingPaper(links) {
  const degrees = d3.rollup(
    links.flat(),
    (all) => all.length,
    (paper) => paper,
  );
  return [...degrees].find(([, degree]) => degree >= 7 && degree <= 9)?.[0] ?? 0;
}

function neighboursOf({ links }, paper) {
  return links.filter(([u, v]) => u !== v && (u === paper || v === paper)).map(([u, v]) => (u === paper ? v : u));
}

function show(seen, go) {
  const { prediction, assets, paper, neighbours } = seen;
  const weights = weigh(seen, find("#paper-head").value);
  const label = new Map([paper, ...neighbours].map((one, place) => [one, prediction.class_ids[place]]));
  const heard = d3.sort([paper, ...neighbours], (one) => -(weights.get(one) ?? 0));
  fillBars(find("#fields"), assets.classes, prediction.scores[0]);
  drawNeighbourhood(seen, heard.filter((one) => one !== paper).slice(0, MOST_DRAWN), weights, label, go);
  tell(assets, neighbours.length, prediction.attention);
  fillTable(find("#neighbour-table"), [
    ["listened to", "labelled", "attention"],
    ...heard.map((one) => [
      one === paper ? "itself" : el("button", { type: "button", onclick: () => go(one) }, `paper ${one}`),
      readable(assets.classes[label.get(one)]),
      weights.has(one) ? `${(100 * weights.get(one)).toFixed(1)} %` : "–",
    ]),
  ]);
}

/** Attention of the asked paper, by the paper it listens to. */
function weigh({ prediction, assets, paper }, choice) {
  if (!prediction.attention) return new Map();
  const { edges, weights } = prediction.attention;
  const means = headMean(weights, assets.heads, choice);
  return new Map(
    edges.map(([from, to], place) => [to === paper ? from : null, means[place]]).filter(([from]) => from !== null),
  );
}

function tell(assets, count, attention) {
  const many = count > MOST_DRAWN ? ` ${MOST_DRAWN} of ${count} are drawn.` : "";
  const how = attention
    ? "The redder and thicker a line, the more than an even share it listened."
    : "Without attention to show.";
  find("#neighbourhood-note").textContent = (count ? how : "It cites no paper, and none cites it.") + many;
  find("#field-legend").replaceChildren(
    ...assets.classes.map((name, place) =>
      el(
        "span",
        {},
        el("span", { class: "dot", style: { "--hue": hue(place, assets.classes.length) } }),
        readable(name),
      ),
    ),
  );
}

function drawNeighbourhood({ assets, paper }, drawn, weights, label, go) {
  const spots = new Map([
    [paper, [WIDTH / 2, HEIGHT / 2]],
    ...drawn.map((one, place) => [one, spotOf(place, drawn.length)]),
  ]);
  const line = (from, to, more) => {
    const [[x1, y1], [x2, y2]] = [spots.get(from), spots.get(to)];
    return svg("line", { x1, y1, x2, y2, ...more });
  };
  const aside = assets.links.filter(([u, v]) => u !== v && u !== paper && v !== paper && spots.has(u) && spots.has(v));
  const board = find("#neighbourhood");
  const had = board.contains(document.activeElement);
  board.replaceChildren(
    ...aside.map(([u, v]) => line(u, v, { class: "link aside" })),
    ...drawn.map((one) => {
      const share = emphasis(weights.get(one) ?? 0, weights.size);
      return line(paper, one, {
        class: "link",
        style: { stroke: ramp(share), "stroke-width": `${1.5 + 6 * share}px` },
      });
    }),
    ...[...spots].map(([one, spot]) => drawPaper(one, spot, one === paper, label.get(one), assets.classes, go)),
  );
  if (had) board.querySelector(".asked")?.focus();
}

/** On one ring, or on two when they are many; what it listened to most is inside. */
function spotOf(place, count) {
  const inner = count > IN_A_RING ? Math.ceil(count / 3) : count;
  const isInner = place < inner;
  const [number, all, reach] = isInner
    ? [place, inner, count > IN_A_RING ? 0.26 : 0.36]
    : [place - inner, count - inner, 0.43];
  const angle = (2 * Math.PI * number) / all - Math.PI / 2;
  return [WIDTH / 2 + 1.1 * reach * WIDTH * Math.cos(angle) * 0.9, HEIGHT / 2 + reach * HEIGHT * Math.sin(angle)];
}

function drawPaper(one, [x, y], isAsked, label, classes, go) {
  const act = (event) => {
    if (event.type === "keydown" && event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    go(one);
  };
  return svg(
    "g",
    {
      class: `node${isAsked ? " asked" : ""}`,
      transform: `translate(${x},${y})`,
      tabindex: 0,
      role: "button",
      style: { "--hue": hue(label, classes.length) },
      "aria-label": `Paper ${one}, ${readable(classes[label])}${isAsked ? ", the one asked about" : ""}`,
      onclick: act,
      onkeydown: act,
      "data-paper": one,
    },
    svg("title", {}, `Paper ${one}: ${readable(classes[label])}`),
    svg("circle", { r: isAsked ? 22 : 17 }),
    svg("text", {}, String(one)),
  );
}
