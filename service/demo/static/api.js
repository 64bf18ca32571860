// The service's public API, and what it refuses in sentences.

/** Where the API is, whatever stands before `/demo/`. */
export const ROOT = new URL("..", document.baseURI);

let key = "";

/** The key goes along with every request from now on, and is kept nowhere. */
export function useKey(value) {
  key = value.trim();
}

export const hasKey = () => key !== "";

let wanted = () => {};

/** Calls `work` with whether the service asks for another key, whenever it has answered. */
export function onKeyWanted(work) {
  wanted = work;
}

/** What the service did not do, and why, in sentences. */
export class Refused extends Error {
  constructor(sentence, { faults = [], code = "", status = 0 } = {}) {
    super(sentence);
    this.faults = faults;
    this.code = code;
    this.status = status;
  }
}

const SENTENCES = {
  unauthenticated: () =>
    key
      ? "The service does not know this key. Check the field “Key” at the top."
      : "This service answers only with a key. Put yours into the field “Key” at the top.",
  forbidden: () => "This key may not do this; it lacks the role.",
  rate_limited: (wait) => `You ask faster than this service allows. Try again in ${wait}.`,
  overloaded: (wait) => `The service has more to do than it can. Try again in ${wait}.`,
  draining: () => "The service is stopping. It answers again after its next start.",
  deadline_exceeded: () => "The answer would have come too late, so it was given up. Try again.",
  request_timeout: () => "The request took too long to arrive. Try again.",
  body_too_large: () => "This is more than the service takes in one request. Send less.",
  unsupported_media_type: () =>
    "The model does not read files of this kind; it reads PNG, JPEG and WebP. Save the picture as one of them.",
  unknown_model: () => "The service has no such model (any more). Load the page again.",
  runner_failed: () => "The model failed on this input. That is a defect of the service; its log says more.",
  internal: () => "The service failed. That is a defect of the service; its log says more.",
};

// What the service says of types and bounds, in plainer words.
const PLAINER = [
  [/^expected array of length >= (\d+)$/, "at least $1 are needed"],
  [/^expected array of length <= (\d+)$/, "at most $1 are allowed"],
  [/^expected str of length <= (\d+)$/, "at most $1 characters are allowed"],
  [/^expected (?:int|float|number) <= (\S+)$/, "the largest allowed number is $1"],
  [/^expected (?:int|float|number) >= (\S+)$/, "the smallest allowed number is $1"],
  [/^expected int, got \S+$/, "a whole number is needed"],
  [/^expected float, got \S+$/, "a number is needed"],
];

export function plainer(reason) {
  const found = PLAINER.find(([pattern]) => pattern.test(reason));
  return found ? reason.replace(...found) : reason;
}

async function refusal(answer) {
  let problem = {};
  try {
    problem = await answer.json();
  } catch {
    // A proxy's page, say: the status has to do.
  }
  const seconds = answer.headers.get("retry-after") ?? "1";
  const wait = seconds === "1" ? "one second" : `${seconds} seconds`;
  const told = SENTENCES[problem.code]?.(wait);
  const sentence = told ?? (problem.error ? `The service says: ${problem.error}.` : `The answer was ${answer.status}.`);
  return new Refused(sentence, { faults: problem.errors ?? [], code: problem.code ?? "", status: answer.status });
}

/** An answer of the service. Throws `RejectedRequest`, or `AbortError` when `signal` says so. */
async function call(path, options = {}) {
  if (!/^[\x21-\x7e]*$/.test(key)) {
    wanted(true);
    throw new Refused(SENTENCES.unauthenticated(), { code: "unauthenticated", status: 401 });
  }
  const headers = { ...options.headers, ...(key ? { "x-api-key": key } : {}) };
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The service does not answer. Is it still running?");
  }
  wanted(answer.status === 401);
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export const getJson = async (path) => (await call(path)).json();
export const getText = async (path) => (await call(path)).text();

/** The first prediction for a request's body, and how long it took. */
export async function predict(model, request, signal) {
  const begun = performance.now();
  const answer = await call(`v1/models/${model}/predict`, {
    method: "POST",
    headers: { "content-type": request.mediaType },
    body: request.body,
    signal,
  });
  const { model: tag, predictions } = await answer.json();
  return { tag, prediction: predictions[0], ms: performance.now() - begun };
}
