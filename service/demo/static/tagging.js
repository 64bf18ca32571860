// Tagging: a sentence, its tags, and what each word looked at.

import { calmly, el, fill, find } from "./dom.js";
import { Conversation, Mistake } from "./conversation.js";
import { emphasis, heat, onTurn } from "./heat.js";
import { jsonRequest } from "./request.js";

// Weights grow with the square of the words: of 80 they are half a megabyte.
const MOST_EXPLAINED = 80;
const MOST_NAMED = 40;
const HUES = {
  NOUN: 215,
  PROPN: 195,
  VERB: 355,
  AUX: 12,
  ADJ: 135,
  ADV: 100,
  PRON: 265,
  DET: 285,
  ADP: 40,
  PART: 55,
  CCONJ: 25,
  SCONJ: 30,
  NUM: 170,
  INTJ: 325,
  PUNCT: 220,
  SYM: 235,
  X: 240,
};
const NAMES = {
  ADJ: "adjective",
  ADP: "adposition",
  ADV: "adverb",
  AUX: "auxiliary",
  CCONJ: "coordinating conjunction",
  DET: "determiner",
  INTJ: "interjection",
  NOUN: "noun",
  NUM: "numeral",
  PART: "particle",
  PRON: "pronoun",
  PROPN: "proper noun",
  PUNCT: "punctuation",
  SCONJ: "subordinating conjunction",
  SYM: "symbol",
  VERB: "verb",
  X: "other",
};
const SAMPLES = [
  "The old man the boats while the young rest.",
  "Can you can a can as a canner can can a can?",
  "Dr. Ada Lovelace didn't email 3 engineers at example.org!",
  "Time flies like an arrow; fruit flies like a banana.",
];

export async function open(panel, models) {
  const [text, sample] = [find("#sentence", panel), find("#sentence-sample", panel)];
  const seen = { prediction: null, head: [0, 0], word: null };
  const talk = new Conversation(panel, models, {
    request: async (model) => {
      if (!text.value.trim()) throw new Mistake("Type a sentence first.");
      const isShort = text.value.trim().split(/\s+/).length <= MOST_EXPLAINED;
      const { explains } = await talk.page("", model);
      return jsonRequest({ text: text.value }, explains && isShort ? { explain: true } : {});
    },
    show: (prediction) => {
      Object.assign(seen, { prediction, word: null });
      show(seen);
    },
    place: ([field]) => (field === "text" ? "The sentence" : ""),
  });
  const first = (await talk.page()).example.request.instances[0];
  const sentences = [first.text ?? first.tokens.join(" "), ...SAMPLES];
  fill(sample, [...sentences.map((one) => [one, one.length > 32 ? `${one.slice(0, 31)}…` : one]), ["", "your own"]]);
  const take = () => sample.value && ((text.value = sample.value), talk.ask());
  const ask = calmly(() => talk.ask());
  sample.addEventListener("change", take);
  text.addEventListener("input", () => ((sample.value = ""), ask()));
  onTurn(() => seen.prediction && show(seen));
  take();
  return talk;
}

function show(seen) {
  const { attention, tokens } = seen.prediction;
  showWords(seen);
  const hint = find("#attention-hint");
  find("#attention-card").hidden = !attention && tokens.length <= MOST_EXPLAINED;
  find(".attention").hidden = !attention || !tokens.length;
  hint.textContent = attention
    ? "Each row is a word, each column a word it may look at; the redder, the more than an even share. Choose a head, or a word above."
    : `Shown for sentences of up to ${MOST_EXPLAINED} words.`;
  find("#attention-readout").textContent = "";
  if (!attention || !tokens.length) return;
  if (!attention[seen.head[0]]?.[seen.head[1]]) seen.head = [0, 0];
  showHeads(seen);
  showMap(seen);
}

function showWords(seen) {
  const { tokens, tags, scores } = seen.prediction;
  const isOne = seen.word !== null && seen.prediction.attention;
  const weights = isOne ? seen.prediction.attention[seen.head[0]][seen.head[1]][seen.word] : null;
  const words = tokens.map((token, place) => {
    const title = `${NAMES[tags[place]] ?? tags[place]}, ${(100 * scores[place]).toFixed(1)} %`;
    const look = () => choose(seen, seen.word === place ? null : place);
    const bar = weights && el("span", { class: "looked", style: { opacity: emphasis(weights[place], tokens.length) } });
    return el(
      "li",
      {},
      el(
        "button",
        {
          type: "button",
          title,
          "aria-pressed": String(seen.word === place),
          onclick: look,
          style: { "--hue": String(HUES[tags[place]] ?? 240) },
        },
        el("b", {}, token),
        el("small", {}, tags[place]),
      ),
      bar,
    );
  });
  const list = find("#words");
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren(...words);
  if (focused >= 0) list.querySelectorAll("button")[focused]?.focus();
}

function choose(seen, word) {
  seen.word = word;
  showWords(seen);
  if (!seen.prediction.attention) return;
  showMap(seen);
  tell(seen);
}

function tell(seen) {
  const readout = find("#attention-readout");
  readout.textContent = "";
  if (seen.word === null) return;
  const { attention, tokens } = seen.prediction;
  const [layer, head] = seen.head;
  const weights = attention[layer][head][seen.word];
  const most = d3.sort(d3.range(tokens.length), (place) => -weights[place]).slice(0, 3);
  const looks = most.map((place) => `“${tokens[place]}” ${(100 * weights[place]).toFixed(0)} %`);
  readout.textContent = `Layer ${layer + 1}, head ${head + 1}: “${tokens[seen.word]}” looked at ${looks.join(", ")}.`;
}

function showHeads(seen) {
  const { attention } = seen.prediction;
  const box = find("#heads");
  const had = box.contains(document.activeElement);
  box.replaceChildren(
    ...attention.flatMap((layer, at) =>
      layer.map((weights, number) => {
        const is = seen.head[0] === at && seen.head[1] === number;
        const name = `${at + 1}.${number + 1}`;
        const turn = () => {
          seen.head = [at, number];
          showWords(seen);
          showMap(seen);
          tell(seen);
        };
        return el(
          "label",
          { title: `Layer ${at + 1}, head ${number + 1}` },
          heat(weights),
          el("input", {
            type: "radio",
            name: "head",
            value: name,
            checked: is,
            onchange: turn,
            "aria-label": `Layer ${at + 1}, head ${number + 1}`,
          }),
          name,
        );
      }),
    ),
  );
  if (had) box.querySelector(":checked")?.focus();
}

function showMap(seen) {
  const { attention, tokens } = seen.prediction;
  const weights = attention[seen.head[0]][seen.head[1]];
  const map = find("#attention-map");
  const canvas = heat(weights);
  map.style.setProperty("--words", tokens.length);
  if (tokens.length > MOST_NAMED) {
    map.replaceChildren(el("span"), canvas);
    return;
  }
  const names = (kind) =>
    tokens.map((token, place) =>
      el("span", { class: kind === "side" && place === seen.word ? "on" : "", title: token }, token),
    );
  map.replaceChildren(
    el("div", { class: "top" }, ...names("top")),
    el("div", { class: "side" }, ...names("side")),
    canvas,
  );
  canvas.addEventListener("click", (event) =>
    choose(seen, Math.floor((event.offsetY / canvas.clientHeight) * tokens.length)),
  );
}
