// Images: a drawing or a file, what it may be, and which patches of it counted.

import { fill, fillBars, find, takeDrops } from "./dom.js";
import { Conversation, Mistake } from "./conversation.js";
import { CLOTHES } from "./clothes.js";
import { emphasis } from "./heat.js";
import { fileRequest, jsonRequest } from "./request.js";
import { Sketch } from "./sketch.js";

const EXAMPLE = "T-shirt (the example of the documentation)";
const MOST_SIDE = 600;

export async function open(panel, models) {
  const seen = { file: null, prediction: null, assets: null };
  const board = find("#sketch", panel);
  const brush = () => ({ grey: Number(find("#brush").value), radius: Number(find("#brush-width").value) });
  const sketch = new Sketch(board, brush, () => drawn());
  const talk = new Conversation(panel, models, {
    request: async (model) => {
      const { explains } = await talk.page("", model);
      if (seen.file) return fileRequest(seen.file, explains);
      if (sketch.isPlain()) throw new Mistake("There is nothing on the board yet. Draw on it, or choose a sample.");
      return jsonRequest({ image: board.toDataURL("image/png").split(",")[1] }, explains ? { explain: true } : {});
    },
    show: async (prediction, model) => {
      Object.assign(seen, { prediction, assets: await talk.page("/assets", model) });
      fillBars(find("#classes"), seen.assets.classes, prediction.scores);
      offerHeads(prediction, models);
      lay(seen);
      return seen.file && seen.isPainted && sketch.isPlain()
        ? ["The picture is of one colour throughout: there is nothing on it to tell apart."]
        : [];
    },
    place: ([field]) => (field === "image" ? (seen.file ? `The file “${seen.file.name}”` : "The drawing") : ""),
  });
  const drawn = () => {
    find("#picture-sample").value = "";
    seen.file = null;
    talk.ask();
  };
  board.addEventListener("pointerdown", clearOverlay);
  board.addEventListener("cursor", ({ detail }) => showCursor(detail, board));
  find("#picture-head", panel).addEventListener("change", () => lay(seen));
  find("#clear-sketch", panel).addEventListener("click", () => (sketch.clear(), clearOverlay(), drawn()));
  readFiles(panel, talk, sketch, seen);
  await offerSamples(panel, talk, sketch, seen);
  return talk;
}

function readFiles(panel, talk, sketch, seen) {
  const read = async (file) => {
    seen.file = file;
    find("#picture-sample").value = "";
    clearOverlay();
    seen.isPainted = await paintFile(sketch, file).then(
      () => true,
      () => (sketch.clear(), false), // the service says what it is not
    );
    talk.ask();
  };
  find("#picture-file", panel).addEventListener("change", ({ target }) => {
    if (target.files.length) read(target.files[0]);
    target.value = ""; // so that the same file can be chosen again
  });
  takeDrops(find("form", panel), read);
}

async function offerSamples(panel, talk, sketch, seen) {
  const sample = find("#picture-sample", panel);
  const example = (await talk.page()).example.request.instances[0].image;
  fill(sample, [[EXAMPLE, "T-shirt"], ...Object.keys(CLOTHES).map((name) => [name, name]), ["", "your own"]]);
  const take = async () => {
    if (!sample.value) return;
    seen.file = null;
    if (sample.value !== EXAMPLE) sketch.take(CLOTHES[sample.value]);
    else await paintFile(sketch, new Blob([Uint8Array.from(atob(example), (one) => one.charCodeAt(0))]));
    talk.ask();
  };
  sample.addEventListener("change", take);
  await take();
}

/** Show a file on the board, stretched to it as the service stretches it to its own size. */
async function paintFile(sketch, file) {
  const picture = await createImageBitmap(file);
  sketch.take((pen) => {
    pen.imageSmoothingQuality = "high";
    pen.drawImage(picture, 0, 0, sketch.canvas.width, sketch.canvas.height);
  });
}

function offerHeads({ attention }, models) {
  const select = find("#picture-head");
  find("#patches").hidden = !attention;
  find("#no-patches").hidden = Boolean(attention) || !models.some(({ name }) => name === "image-vit");
  if (!attention || select.options.length === attention.length + 2) return;
  fill(select, [
    ["mean", "all heads"],
    ...attention.map((_, head) => [String(head), `head ${head + 1}`]),
    ["none", "do not show"],
  ]);
}

function clearOverlay() {
  const canvas = find("#overlay");
  canvas.width = canvas.height = 1;
}

/** The attention over the patches as squares on the picture: what counted little is veiled. */
function lay({ prediction, assets }) {
  clearOverlay();
  const head = find("#picture-head").value;
  if (!prediction?.attention || head === "none") return;
  const { attention } = prediction;
  const weights =
    head === "mean" ? attention[0].map((_, patch) => d3.mean(attention, (row) => row[patch])) : attention[Number(head)];
  const columns = assets.width / assets.patch;
  const side = Math.floor(MOST_SIDE / columns);
  const canvas = find("#overlay");
  Object.assign(canvas, { width: side * columns, height: side * (assets.height / assets.patch) });
  const pen = canvas.getContext("2d");
  weights.forEach((weight, patch) => {
    const [x, y] = [(patch % columns) * side, Math.floor(patch / columns) * side];
    pen.fillStyle = `rgb(255 150 0 / ${0.9 * emphasis(weight, weights.length)})`;
    pen.fillRect(x, y, side, side);
    pen.strokeStyle = "rgb(255 200 120 / 0.25)";
    pen.strokeRect(x + 0.5, y + 0.5, side - 1, side - 1);
  });
}

function showCursor([x, y], board) {
  const canvas = find("#overlay");
  Object.assign(canvas, { width: board.width * 8, height: board.height * 8 });
  const pen = canvas.getContext("2d");
  pen.strokeStyle = "#4da3ff";
  pen.lineWidth = 2;
  pen.strokeRect(x * 8 - 4, y * 8 - 4, 8, 8);
}
