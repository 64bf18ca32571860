// A request to a model, and how else one could send it: with curl, or with Python.

import { el } from "./dom.js";
import { ROOT, hasKey } from "./api.js";

const JSON_TYPE = "application/json";
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const address = (model) => new URL(`v1/models/${model}/predict`, ROOT).href;

/** A request with one instance. */
export function jsonRequest(instance, more = {}) {
  const body = { instances: [instance], ...more };
  return { mediaType: JSON_TYPE, body: JSON.stringify(body), value: body };
}

/** A request with a file: raw where nothing else is asked for, else as base64 in JSON. */
export async function fileRequest(file, explain) {
  if (!explain) return { mediaType: file.type || "application/octet-stream", body: file, file };
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  const request = jsonRequest({ image: url.slice(url.indexOf(",") + 1) }, { explain: true });
  return { ...request, file, value: undefined };
}

/** The same request without its explanation; `null` where none is asked for. */
export function withoutExplanation(request) {
  if (request.mediaType !== JSON_TYPE) return null;
  const { explain, ...value } = JSON.parse(request.body);
  if (!explain) return null;
  if (request.file)
    return { mediaType: request.file.type || "application/octet-stream", body: request.file, file: request.file };
  return { ...request, body: JSON.stringify(value), value };
}

/** The request as a line for a shell. */
export function curl(model, request) {
  const keyed = hasKey() ? ` \\\n  -H "x-api-key: $LECTERN_KEY"` : "";
  const head = `curl -s ${quoted(address(model))} \\\n  -H ${quoted(`content-type: ${request.mediaType}`)}${keyed}`;
  if (request.value) return `${head} \\\n  -d ${quoted(request.body)}`;
  const name = quoted(request.file.name);
  if (request.mediaType !== JSON_TYPE) return `${head} \\\n  --data-binary @${name}`;
  const body = `printf '{"instances": [{"image": "%s"}], "explain": true}' "$(base64 < ${name} | tr -d '\\n')"`;
  return `${body} |\n  ${head} \\\n  -d @-`;
}

/** The request as a program that needs nothing but Python. */
export function python(model, request) {
  const isJson = request.mediaType === JSON_TYPE;
  const uses = [
    "json",
    "urllib.request",
    ...(hasKey() ? ["os"] : []),
    ...(request.file && isJson ? ["base64"] : []),
  ].sort();
  const keyed = hasKey() ? ', "x-api-key": os.environ["LECTERN_KEY"]' : "";
  return `${uses.map((use) => `import ${use}`).join("\n")}

${pythonBody(request, isJson)}
request = urllib.request.Request(
    ${literal(address(model))},
    data=${isJson ? "json.dumps(body).encode()" : "data"},
    headers={"content-type": ${literal(request.mediaType)}${keyed}},
)
with urllib.request.urlopen(request) as answer:
    print(json.load(answer))`;
}

function pythonBody({ file, value }, isJson) {
  if (!file) return `body = ${literal(value)}`;
  const body = '\nbody = {"instances": [{"image": base64.b64encode(data).decode()}], "explain": True}';
  return `with open(${literal(file.name)}, "rb") as file:\n    data = file.read()${isJson ? body : ""}`;
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value)
      .map(([name, one]) => `${literal(name)}: ${literal(one)}`)
      .join(", ")}}`;
  }
  return JSON.stringify(value); // Python reads JSON's escapes in strings, and its numbers
}

/** The card that shows a tab's last request; returns how to give it the next one. */
export function requestCard(place) {
  let texts = { curl: "", python: "" };
  let form = "curl";
  const code = el("pre", { tabindex: "0", role: "region", "aria-label": "The request" });
  const forms = [
    ["curl", "curl"],
    ["python", "Python"],
  ].map(([name, text]) => el("button", { type: "button", "data-form": name, onclick: () => show(name) }, text));
  const copy = el(
    "button",
    {
      type: "button",
      class: "copy",
      onclick: async () => {
        await copyText(texts[form]);
        copy.textContent = "Copied";
        setTimeout(() => (copy.textContent = "Copy"), 1500);
      },
    },
    "Copy",
  );
  const show = (name) => {
    form = name;
    code.textContent = texts[name];
    for (const one of forms) one.setAttribute("aria-pressed", one.dataset.form === name);
  };
  place.classList.add("card");
  place.replaceChildren(el("div", { class: "bar" }, el("h2", {}, "The request"), ...forms, copy), code);
  show(form);
  return (model, request) => {
    texts = { curl: curl(model, request), python: python(model, request) };
    show(form);
  };
}

async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = el("textarea", {}, text); // over plain HTTP from elsewhere browsers offer nothing else
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
