// The service's own metrics: the few series that the status corner shows.

const LINE = /^(lectern_[a-z_]+)\{(.*)\} (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;
const WANTED = new Set([
  "lectern_requests_total",
  "lectern_request_seconds_bucket",
  "lectern_feature_stability_index",
  "lectern_feature_stability_limit",
  "lectern_feature_window_instances",
]);
const INSTANCES_NEEDED = 1000;

/** Figures by model: `requests`, `buckets` (upper bound to count), `drift` (feature to index and limit), `window`. */
export function read(text) {
  const models = new Map();
  for (const line of text.split("\n")) {
    const [, name, inside, value] = LINE.exec(line) ?? [];
    if (!WANTED.has(name)) continue;
    const labels = Object.fromEntries([...inside.matchAll(LABEL)].map(([, label, content]) => [label, content]));
    if (!models.has(labels.model))
      models.set(labels.model, { requests: 0, buckets: new Map(), drift: new Map(), window: 0 });
    add(models.get(labels.model), name, labels, Number(value));
  }
  return models;
}

function add(figures, name, labels, value) {
  if (name === "lectern_requests_total") figures.requests += value;
  else if (name === "lectern_request_seconds_bucket") {
    const bound = Number(labels.le.replace("+Inf", "Infinity"));
    figures.buckets.set(bound, (figures.buckets.get(bound) ?? 0) + value); // of every version that has answered
  } else if (name === "lectern_feature_window_instances") figures.window = value;
  else {
    const kind = name.endsWith("_index") ? "index" : "limit";
    figures.drift.set(labels.feature, { ...figures.drift.get(labels.feature), [kind]: value });
  }
}

/** Requests per second between two readings. */
export const rate = (then, now, seconds) => Math.max(0, now.requests - then.requests) / seconds;

/**
 * The bucket that holds the 99th percentile of what was answered between two readings: `[above, upTo]` in seconds, which
 * is all that a histogram knows of it. `null` when nothing was answered.
 */
export function p99(then, now) {
  const bounds = [...now.buckets.keys()].sort((a, b) => a - b);
  const counts = bounds.map((bound) => now.buckets.get(bound) - (then.buckets.get(bound) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (!(total > 0)) return null;
  const place = counts.findIndex((count) => count >= 0.99 * total);
  return [place ? bounds[place - 1] : 0, bounds[place]];
}

/** How far a model's inputs and answers are from what it learned from, in words. */
export function drift({ drift: features, window }) {
  if (!features.size) return { text: "not watched", isAlarm: false };
  if (window < INSTANCES_NEEDED) return { text: `${Math.round(window)} of ${INSTANCES_NEEDED} seen`, isAlarm: false };
  const [name, { index, limit }] = [...features].sort(([, a], [, b]) => b.index / b.limit - a.index / a.limit)[0];
  const isAlarm = index > limit;
  return { text: `${name} ${index.toFixed(2)}, ${isAlarm ? "above" : "below"} ${limit.toFixed(2)}`, isAlarm };
}
