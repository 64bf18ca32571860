// Where a molecule's atoms go.

/** How long a bond is. */
export const STEP = 48;
const MOST_PAIRED = 80;

/**
 * Spots `[x, y]` inside a field of this size.
 *
 * First springs between all pairs, as long as the way between the two (Kamada and Kawai 1989), so that no ring starts out
 * folded; then only the bonds, with every atom keeping away from the others, which makes rings regular.
 */
export function layOut(atoms, bonds, size, edge) {
  const nodes = d3.range(atoms).map(() => ({}));
  const links = bonds
    .filter(([u, v]) => u !== v && u < atoms && v < atoms)
    .map(([source, target]) => ({ source, target }));
  if (atoms <= MOST_PAIRED) {
    const pairs = findWays(atoms, links);
    const springs = d3
      .forceLink(pairs)
      .distance(({ way }) => STEP * way)
      .strength(({ way }) => way ** -2);
    d3.forceSimulation(nodes).force("pairs", springs).stop().tick(300);
  }
  const ends = links.map(({ source, target }) => ({ source: source.index ?? source, target: target.index ?? target }));
  d3.forceSimulation(nodes)
    .force("bonds", d3.forceLink(ends).distance(STEP).strength(1).iterations(4))
    .force("apart", d3.forceManyBody().strength(-160))
    .force("x", d3.forceX().strength(0.02))
    .force("y", d3.forceY().strength(0.02))
    .alpha(0.5)
    .stop()
    .tick(300);
  return fit(lie(nodes.map(({ x, y }) => [x, y])), size, edge);
}

/** Every pair of atoms that are joined, with the number of bonds between them. */
function findWays(atoms, links) {
  const near = d3.range(atoms).map(() => []);
  for (const { source, target } of links) {
    near[source].push(target);
    near[target].push(source);
  }
  return d3.range(atoms).flatMap((start) => {
    const ways = new Map([[start, 0]]);
    for (const [atom, way] of ways) for (const next of near[atom]) if (!ways.has(next)) ways.set(next, way + 1);
    return [...ways].filter(([atom]) => atom > start).map(([target, way]) => ({ source: start, target, way }));
  });
}

/** Turned so that the longest side lies. */
function lie(spots) {
  const [x, y] = [d3.mean(spots, ([a]) => a), d3.mean(spots, ([, b]) => b)];
  const centred = spots.map(([a, b]) => [a - x, b - y]);
  const turn =
    0.5 *
    Math.atan2(
      2 * d3.sum(centred, ([a, b]) => a * b),
      d3.sum(centred, ([a, b]) => a * a - b * b),
    );
  const [cos, sin] = [Math.cos(turn), Math.sin(turn)];
  return centred.map(([a, b]) => [a * cos + b * sin, b * cos - a * sin]);
}

/** In the middle of the field, no larger than it. */
function fit(spots, [width, height], edge) {
  const [left, right] = d3.extent(spots, ([x]) => x);
  const [top, bottom] = d3.extent(spots, ([, y]) => y);
  const scale = Math.min(1.25, (width - 2 * edge) / (right - left || 1), (height - 2 * edge) / (bottom - top || 1));
  return spots.map(([x, y]) => [
    width / 2 + scale * (x - (left + right) / 2),
    height / 2 + scale * (y - (top + bottom) / 2),
  ]);
}
