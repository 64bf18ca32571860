// One tab's talk with its models: what was asked last, its answer or why there is none.

import { el, fill, find } from "./dom.js";
import { Refused, getJson, plainer, predict } from "./api.js";
import { requestCard, withoutExplanation } from "./request.js";

const PLACELESS = "The request";

/** What a person can mend before the service is asked. */
export class Mistake extends Error {}

export class Conversation {
  /**
   * @param panel The tab.
   * @param models Those of its task, from `GET /v1/models`.
   * @param parts `request(model)` makes the request and may throw `Mistake`; `show(prediction, model)` draws the answer
   *   and may return sentences that warn of it; `place(loc)` says in words where a fault is; `mark(faults)` shows it
   *   where it is.
   */
  constructor(panel, models, { request, show, place = () => "", mark = () => {} }) {
    Object.assign(this, { panel, request, show, place, mark, pages: new Map(), abort: null });
    this.tags = new Map(models.map(({ name, version }) => [name, `${name}:${version}`]));
    this.select = find(".model", panel);
    this.tell = requestCard(find(":scope > .request", panel));
    this.cautions = el("ul", { class: "cautions", hidden: true });
    find(".fault", panel).after(this.cautions);
    fill(
      this.select,
      models.map(({ name, version }) => [name, `${name} ${version}`]),
    );
    this.select.addEventListener("change", () => this.ask());
    find("form", panel).addEventListener("submit", (event) => event.preventDefault());
  }

  get model() {
    return this.select.value;
  }

  /** A page about the model that is asked: "" or "/assets". */
  page(part = "", model = this.model) {
    const path = `v1/models/${model}${part}`;
    if (!this.pages.has(path)) {
      const asked = getJson(path);
      this.pages.set(path, asked);
      asked.catch(() => this.pages.delete(path));
    }
    return this.pages.get(path);
  }

  /** Ask the model about what the tab now holds; an older question is given up. */
  async ask() {
    this.abort?.abort();
    const abort = (this.abort = new AbortController());
    const model = this.model;
    find(".result", this.panel).classList.add("stale");
    try {
      const request = await this.request(model);
      if (abort.signal.aborted) return;
      const { tag, prediction, ms, isCut } = await this.answer(model, request, abort.signal);
      if (tag !== this.tags.get(model)) this.renew(model, tag);
      const cautions = (await this.show(prediction, model)) ?? [];
      if (isCut) cautions.push("This is too large to explain, so the answer comes without its attention.");
      if (!abort.signal.aborted) this.end(`Answered by ${tag} in ${Math.max(1, Math.round(ms))} ms.`, cautions);
    } catch (error) {
      if (error.name !== "AbortError" && !abort.signal.aborted) this.explain(error);
    }
  }

  /** Ask; what is refused with its explanation is asked for without it, because that has narrower limits. */
  async answer(model, request, signal) {
    this.tell(model, request);
    try {
      return await predict(model, request, signal);
    } catch (error) {
      const shorter = withoutExplanation(request);
      if (error.status !== 422 || !shorter) throw error;
      const answer = await predict(model, shorter, signal);
      this.tell(model, shorter);
      return { ...answer, isCut: true };
    }
  }

  /** Another version went live: what is known of the model may no longer hold. */
  renew(model, tag) {
    this.tags.set(model, tag);
    this.pages.clear();
    find(`option[value="${model}"]`, this.select).textContent = tag.replace(":", " ");
    document.dispatchEvent(new Event("versions"));
  }

  end(sentence, cautions) {
    this.cautions.replaceChildren(...cautions.map((one) => el("li", {}, one)));
    this.cautions.hidden = !cautions.length;
    find(".fault", this.panel).hidden = true;
    this.panel.classList.remove("failed");
    find(".result", this.panel).classList.remove("stale");
    find(".answered", this.panel).textContent = sentence;
    this.mark([]);
  }

  explain(error) {
    const faults = error instanceof Refused ? error.faults : [];
    const sentences = faults.map(({ loc, reason }) => {
      const inside = loc.slice(2); // after "instances", 0
      return `${this.place(inside) || PLACELESS}: ${plainer(reason)}.`;
    });
    if (!(error instanceof Refused || error instanceof Mistake)) console.error(error);
    const told =
      error instanceof Refused || error instanceof Mistake ? error.message : "This page failed; that is a defect.";
    const box = find(".fault", this.panel);
    box.replaceChildren(
      ...(sentences.length > 1
        ? [el("p", {}, "The model cannot read this:"), el("ul", {}, ...sentences.map((one) => el("li", {}, one)))]
        : [el("p", {}, sentences[0] ?? told)]),
    );
    box.hidden = false;
    this.cautions.hidden = true;
    this.panel.classList.add("failed");
    find(".answered", this.panel).textContent = "";
    this.mark(faults.map(({ loc }) => loc.slice(2)));
  }
}
