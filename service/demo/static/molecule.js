// Molecules: a board to build them on, their label, and the bonds by attention.

import { calmly, el, fill, fillBars, fillTable, find } from "./dom.js";
import { Board } from "./board.js";
import { Conversation, Mistake } from "./conversation.js";
import { headChoices, headMean } from "./heads.js";
import { emphasis } from "./heat.js";
import { jsonRequest } from "./request.js";

const RING = [
  [0, 1],
  [1, 2],
  [2, 3],
  [3, 4],
  [4, 5],
  [5, 0],
];
// Structures are facts of chemistry; the first sample is the example of the documentation.
const SAMPLES = {
  "2-nitronaphthalene": [
    "CCCCCCCCCCNOO",
    [...RING, [5, 6], [6, 7], [7, 8], [8, 9], [9, 4], [7, 10], [10, 11], [10, 12]],
  ],
  "1,3-dinitrobenzene": ["CCCCCCNOONOO", [...RING, [5, 6], [6, 7], [6, 8], [1, 9], [9, 10], [9, 11]]],
  aniline: ["CCCCCCN", [...RING, [5, 6]]],
  phenol: ["CCCCCCO", [...RING, [5, 6]]],
  toluene: ["CCCCCCC", [...RING, [5, 6]]],
  ethanol: [
    "CCO",
    [
      [0, 1],
      [1, 2],
    ],
  ],
};

// Most bonds that an atom has in a stable compound without its hydrogens, charged atoms included.
const MOST_BONDS = { H: 1, B: 4, C: 4, N: 4, O: 3, F: 1, Si: 4, P: 5, S: 6, Cl: 4, Br: 4, I: 5 };

const BUTTONS = {
  "add-atom": "addAtom",
  "add-ring": "addRing",
  "remove-atom": "removeChosen",
  tidy: "tidy",
  "clear-molecule": "clear",
};

/** Atoms of a text, parted by spaces or commas. */
const readAtoms = (text) => text.split(/[\s,]+/).filter(Boolean);

function readBonds(text) {
  return text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map((bond) => {
      const found = /^(\d+)-(\d+)$/.exec(bond);
      if (!found) throw new Mistake(`Bonds: “${bond}” is not a bond; write two numbers of atoms, for example 0-1.`);
      return [Number(found[1]), Number(found[2])];
    });
}

export async function open(panel, models) {
  const seen = { prediction: null, heads: null };
  const fields = {
    atoms: find("#atoms", panel),
    bonds: find("#bonds", panel),
    sample: find("#molecule-sample", panel),
  };
  const board = new Board(
    find("#molecule-board", panel),
    () => find("#elements input:checked").value,
    () => {
      fields.sample.value = "";
      write(board, fields);
      talk.ask();
    },
  );
  const talk = new Conversation(panel, models, {
    request: async (model) => {
      board.forget();
      const molecule = { atoms: readAtoms(fields.atoms.value), bonds: readBonds(fields.bonds.value) };
      board.take(molecule.atoms, molecule.bonds);
      if (!molecule.atoms.length) throw new Mistake("There is no atom yet. Click into the field, or choose a sample.");
      const { explains } = await talk.page("", model);
      return jsonRequest(molecule, explains ? { explain: true } : {});
    },
    show: async (prediction, model) => {
      const assets = await talk.page("/assets", model);
      Object.assign(seen, { prediction, heads: assets.heads });
      fillBars(find("#molecule-classes"), assets.classes, prediction.scores);
      headChoices(find("#molecule-head"), assets.heads);
      colour(board, seen);
      return overbonded(board);
    },
    place: (loc) => placeOf(loc, board),
    mark: (faults) => board.mark(faults),
  });
  await offer(talk, fields.sample);
  listen(panel, talk, board, fields, seen);
  fields.sample.dispatchEvent(new Event("change"));
  return talk;
}

/** Atoms with more bonds than chemistry allows; the model answers all the same. */
function overbonded({ atoms, bonds }) {
  const counts = d3.rollup(
    bonds.flat(),
    (all) => all.length,
    (atom) => atom,
  );
  return atoms.flatMap((symbol, atom) => {
    const [count, most] = [counts.get(atom) ?? 0, MOST_BONDS[symbol] ?? Infinity];
    if (count <= most) return [];
    return [
      `Atom ${atom}, ${symbol}, has ${count} bonds; ${symbol} has ${most} at most. The label is of no real molecule.`,
    ];
  });
}

function placeOf([field, number], { atoms, bonds }) {
  if (field === "atoms") return number === undefined ? "The atoms" : `Atom ${number}, “${atoms[number]}”`;
  return number === undefined ? "The bonds" : `Bond ${bonds[number]?.join("-")}`;
}

function write(board, { atoms, bonds }) {
  atoms.value = board.atoms.join(" ");
  bonds.value = board.bonds.map((bond) => bond.join("-")).join(" ");
}

function listen(panel, talk, board, fields, seen) {
  const { atoms, bonds, sample } = fields;
  const ask = calmly(() => talk.ask());
  for (const field of [atoms, bonds]) field.addEventListener("input", () => ((sample.value = ""), ask()));
  sample.addEventListener("change", () => {
    if (!sample.value) return;
    board.clear();
    board.take(...JSON.parse(sample.value));
    write(board, fields);
    talk.ask();
  });
  find("#molecule-head", panel).addEventListener("change", () => colour(board, seen));
  for (const [id, verb] of Object.entries(BUTTONS)) {
    find(`#${id}`, panel).addEventListener("click", () => {
      board[verb]();
      board.changed();
    });
  }
}

async function offer(talk, sample) {
  const assets = await talk.page("/assets");
  find("#elements").replaceChildren(
    ...assets.atoms.map((symbol, place) =>
      el("label", {}, el("input", { type: "radio", name: "element", value: symbol, checked: place === 0 }), symbol),
    ),
  );
  const first = (await talk.page()).example.request.instances[0];
  const isKnown = ["C", "N", "O"].every((symbol) => assets.atoms.includes(symbol));
  const more = isKnown
    ? Object.entries(SAMPLES).map(([name, [symbols, links]]) => [JSON.stringify([[...symbols], links]), name])
    : [];
  const name = isKnown ? "nitrobenzene" : "the model's example";
  fill(sample, [[JSON.stringify([first.atoms, first.bonds]), name], ...more, ["", "your own"]]);
}

/** Bonds by their attention: the mean of both ways over the chosen heads. */
function colour(board, { prediction, heads }) {
  if (!prediction?.attention) return;
  const { edges, weights } = prediction.attention;
  const rows = headMean(weights, heads, find("#molecule-head").value);
  const ways = new Map(edges.map(([from, to], place) => [`${from}-${to}`, rows[place]]));
  const into = d3.rollup(
    edges,
    (all) => all.length,
    ([, to]) => to,
  );
  const stress = (from, to) => emphasis(ways.get(`${from}-${to}`) ?? 0, into.get(to));
  board.colour(board.bonds.map(([u, v]) => (stress(u, v) + stress(v, u)) / 2));
  const name = (atom) => `${board.atoms[atom]} ${atom}`;
  const percent = (from, to) => `${(100 * (ways.get(`${from}-${to}`) ?? 0)).toFixed(0)} %`;
  fillTable(find("#bond-table"), [
    ["bond", "second listens to first", "first listens to second"],
    ...board.bonds.map(([u, v]) => [`${name(u)} – ${name(v)}`, percent(u, v), percent(v, u)]),
  ]);
}
