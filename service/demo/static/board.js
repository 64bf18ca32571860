// A board on which a molecule is drawn: by mouse and finger, or by keyboard.

import { svg } from "./dom.js";
import { ramp } from "./heat.js";
import { STEP, layOut } from "./layout.js";

const [WIDTH, HEIGHT, EDGE] = [480, 320, 30];
const RING = 6;

export class Board {
  constructor(place, element, changed) {
    Object.assign(this, {
      place,
      element,
      changed,
      atoms: [],
      bonds: [],
      spots: [],
      chosen: null,
      shares: [],
      wrong: [],
      drag: null,
    });
    place.addEventListener("pointerdown", (event) => this.press(event));
    place.addEventListener("pointermove", (event) => this.move(event));
    place.addEventListener("pointerup", () => this.release());
    place.addEventListener("pointercancel", () => (this.drag = null));
    place.addEventListener("keydown", (event) => this.type(event));
  }

  clear() {
    Object.assign(this, { atoms: [], bonds: [], spots: [], chosen: null, shares: [], wrong: [] });
    this.draw();
  }

  /** Show this molecule; atoms that were there stay where they are. */
  take(atoms, bonds) {
    const isSame = JSON.stringify([atoms, bonds]) === JSON.stringify([this.atoms, this.bonds]);
    const isGrown = atoms.length !== this.atoms.length;
    if (!isSame) Object.assign(this, { atoms, bonds, shares: [] });
    if (this.chosen !== null && this.chosen >= atoms.length) this.chosen = null;
    if (isGrown || this.spots.length !== atoms.length) this.tidy();
    else this.draw();
  }

  forget() {
    this.wrong = [];
  }

  mark(faults) {
    this.wrong = faults;
    this.draw();
  }

  colour(shares) {
    this.shares = shares;
    this.draw();
  }

  /** Lay the atoms out anew. */
  tidy() {
    this.spots = layOut(this.atoms.length, this.bonds, [WIDTH, HEIGHT], EDGE);
    this.draw();
  }

  addAtom(spot = this.freeSpot()) {
    this.atoms = [...this.atoms, this.element()];
    this.spots.push(spot);
    const added = this.atoms.length - 1;
    if (this.chosen !== null) this.bonds = [...this.bonds, [this.chosen, added]];
    this.chosen = added;
  }

  /** A ring of six, bonded to the chosen atom. */
  addRing() {
    const first = this.atoms.length;
    this.atoms = [...this.atoms, ...Array(RING).fill(this.element())];
    this.bonds = [...this.bonds, ...d3.range(RING).map((atom) => [first + atom, first + ((atom + 1) % RING)])];
    if (this.chosen !== null) this.bonds = [...this.bonds, [this.chosen, first]];
    this.tidy();
  }

  removeChosen() {
    const gone = this.chosen ?? this.atoms.length - 1;
    const renumber = (atom) => (atom > gone ? atom - 1 : atom);
    this.atoms = this.atoms.filter((_, atom) => atom !== gone);
    this.spots = this.spots.filter((_, atom) => atom !== gone);
    this.bonds = this.bonds.filter((bond) => !bond.includes(gone)).map((bond) => bond.map(renumber));
    this.chosen = null;
  }

  freeSpot() {
    const [x, y] = this.spots[this.chosen ?? this.spots.length - 1] ?? [WIDTH / 2, HEIGHT / 2];
    const around = d3
      .range(12)
      .map((step) => [x + STEP * Math.cos((step * Math.PI) / 6), y + STEP * Math.sin((step * Math.PI) / 6)]);
    const inside = around.filter(([a, b]) => a > EDGE && a < WIDTH - EDGE && b > EDGE && b < HEIGHT - EDGE);
    return d3.greatest(inside, ([a, b]) => d3.min(this.spots, ([c, d]) => Math.hypot(a - c, b - d)) ?? 0) ?? [x, y];
  }

  /** Choose an atom; with another one chosen, bond the two, or part them. */
  choose(atom) {
    const other = this.chosen;
    this.chosen = other === atom ? null : atom;
    if (other === null || other === atom) return false;
    const isThis = ([u, v]) => (u === other && v === atom) || (u === atom && v === other);
    this.bonds = this.bonds.some(isThis) ? this.bonds.filter((bond) => !isThis(bond)) : [...this.bonds, [other, atom]];
    this.chosen = null;
    return true;
  }

  // The mouse and the keyboard.

  find(event) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(this.place.getScreenCTM().inverse());
    return [x, y];
  }

  press(event) {
    const atom = event.target.closest(".atom");
    const bond = event.target.closest(".bond-group");
    if (atom) this.drag = { atom: Number(atom.dataset.number), from: this.find(event), isMoved: false };
    else if (bond) this.part(Number(bond.dataset.number));
    else this.drag = { atom: null, from: this.find(event), isMoved: false };
    event.preventDefault();
  }

  part(number) {
    this.bonds = this.bonds.filter((_, place) => place !== number);
    this.changed();
  }

  move(event) {
    if (!this.drag) return;
    const spot = this.find(event);
    this.drag.isMoved ||= Math.hypot(spot[0] - this.drag.from[0], spot[1] - this.drag.from[1]) > 5;
    if (!this.drag.isMoved || this.drag.atom === null) return;
    this.spots[this.drag.atom] = spot;
    this.draw();
  }

  release() {
    const drag = this.drag;
    this.drag = null;
    if (!drag || drag.isMoved) return;
    if (drag.atom === null) {
      this.addAtom(drag.from);
      this.changed();
    } else this.act(drag.atom);
  }

  act(atom) {
    if (this.choose(atom)) this.changed();
    else this.draw();
  }

  type(event) {
    const atom = event.target.closest(".atom");
    const bond = event.target.closest(".bond-group");
    if (!(atom || bond) || !["Enter", " ", "Delete", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    const number = Number((atom ?? bond).dataset.number);
    if (bond) this.part(number);
    else if (event.key === "Enter" || event.key === " ") this.act(number);
    else {
      this.chosen = number;
      this.removeChosen();
      this.changed();
    }
  }

  // The picture.

  draw() {
    const focused = this.place.contains(document.activeElement) ? document.activeElement.dataset : {};
    const bonds = this.bonds.map((bond, number) => this.drawBond(bond, number)).filter(Boolean);
    this.place.replaceChildren(...bonds, ...this.atoms.map((_, number) => this.drawAtom(number)));
    if (focused.kind) this.place.querySelector(`[data-kind=${focused.kind}][data-number="${focused.number}"]`)?.focus();
  }

  isWrong(field, number) {
    return this.wrong.some(([name, place]) => name === field && place === number) ? " wrong" : "";
  }

  drawBond([u, v], number) {
    const [from, to] = [this.spots[u], this.spots[v]];
    if (!from || !to || u === v) return null;
    const ends = { x1: from[0], y1: from[1], x2: to[0], y2: to[1] };
    const share = this.shares.length === this.bonds.length ? this.shares[number] : 0;
    const name = `Bond of atoms ${u} and ${v}`;
    return svg(
      "g",
      {
        class: `bond-group${this.isWrong("bonds", number)}`,
        tabindex: 0,
        role: "button",
        "aria-label": `${name}; removes it`,
        "data-kind": "bond",
        "data-number": number,
      },
      svg("title", {}, name),
      svg("line", { class: "bond-reach", ...ends }),
      svg("line", { class: "bond", ...ends, style: { stroke: ramp(share), "stroke-width": `${3 + 7 * share}px` } }),
    );
  }

  drawAtom(number) {
    const [x, y] = this.spots[number];
    const is = `${this.chosen === number ? " chosen" : ""}${this.isWrong("atoms", number)}`;
    return svg(
      "g",
      {
        class: `atom${is}`,
        transform: `translate(${x},${y})`,
        tabindex: 0,
        role: "button",
        "aria-pressed": String(this.chosen === number),
        "aria-label": `Atom ${number}, ${this.atoms[number]}`,
        "data-kind": "atom",
        "data-number": number,
      },
      svg("circle", { r: 14 }),
      svg("text", {}, this.atoms[number]),
    );
  }
}
