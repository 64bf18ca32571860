// Heads of graph attention: their choice, and the weights that a choice means.

import { fill } from "./dom.js";

const LAST = "last";

/** Rows of `weights` that a choice stands for; `heads` are those of each layer, the first layer's first. */
function rowsOf(heads, choice) {
  const total = d3.sum(heads);
  if (choice === LAST) return d3.range(total - heads.at(-1), total);
  if (choice === "all") return d3.range(total);
  return [Number(choice)];
}

/** Offer the last layer, all heads, and each head; what was chosen stays chosen. */
export function headChoices(select, heads) {
  const single = heads.flatMap((count, layer) => d3.range(count).map((head) => `layer ${layer + 1}, head ${head + 1}`));
  if (select.options.length === single.length + 2) return;
  fill(select, [[LAST, "the last layer"], ["all", "all layers"], ...single.map((name, row) => [String(row), name])]);
}

/** The mean over the chosen heads, for each edge; `weights` is `(heads, edges)`. */
export function headMean(weights, heads, choice) {
  const rows = rowsOf(heads, choice);
  return weights[0].map((_, edge) => d3.mean(rows, (row) => weights[row][edge]));
}
