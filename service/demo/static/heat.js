// Heat maps: a square of weights as a canvas, one pixel a weight, in the page's own colours.

import { el } from "./dom.js";

const colour = (name) => d3.rgb(getComputedStyle(document.documentElement).getPropertyValue(name).trim());

/** A canvas with a row of pixels for each row of `weights`; the largest weight is reddest. */
export function heat(weights) {
  const [low, high] = [colour("--field"), colour("--strong")];
  const mix = d3.interpolateRgb(low, high);
  const most = d3.max(weights, (row) => d3.max(row)) || 1;
  const [rows, columns] = [weights.length, weights[0].length];
  const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
  const image = new ImageData(columns, rows);
  weights.flat().forEach((weight, place) => {
    const { r, g, b } = d3.rgb(mix(Math.sqrt(weight / most)));
    image.data.set([r, g, b, 255], 4 * place);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Calls `work` when the page turns from light to dark or back. */
export function onTurn(work) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", work);
}

/** A colour of the ramp from little to much, as CSS mixes it, so that it turns with the page. */
export const ramp = (share) => `color-mix(in oklab, var(--weak), var(--strong) ${Math.round(100 * share)}%)`;
