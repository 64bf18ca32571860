// Heat maps: a square of weights as a canvas, one pixel a weight, in the page's own colours.

import { el } from "./dom.js";

const colour = (name) => d3.rgb(getComputedStyle(document.documentElement).getPropertyValue(name).trim());

/**
 * How far a weight stands out among `count` that sum to 1: 0 up to the even share, 1 where it is the whole.
 * Attention that is spread evenly says nothing, so it must not look like much.
 */
export const emphasis = (weight, count) => (count > 1 ? Math.max(0, 1 + Math.log(weight) / Math.log(count)) : 0);

/** A canvas with a row of pixels for each row of `weights`, redder the more a weight is above its row's even share. */
export function heat(weights) {
  const [low, high] = [colour("--field"), colour("--strong")];
  const mix = d3.interpolateRgb(low, high);
  const [rows, columns] = [weights.length, weights[0].length];
  const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
  const image = new ImageData(columns, rows);
  weights.flat().forEach((weight, place) => {
    const { r, g, b } = d3.rgb(mix(emphasis(weight, columns)));
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
