// A drawing board of 28 by 28 points, for the mouse, the finger and the keyboard.

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Sketch {
  /** @param changed is called when something was drawn; `brush` says how: `{grey, radius}`. */
  constructor(canvas, brush, changed) {
    Object.assign(this, { canvas, brush, changed, last: null, cursor: [canvas.width / 2, canvas.height / 2] });
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.begin(event));
    canvas.addEventListener("pointermove", (event) => this.last && this.stroke(this.find(event)));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.end());
    canvas.addEventListener("keydown", (event) => this.press(event));
  }

  clear() {
    this.pen.fillStyle = "#000";
    this.pen.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Whether every point has the same colour. */
  isPlain() {
    const { width, height } = this.canvas;
    const points = new Uint32Array(this.pen.getImageData(0, 0, width, height).data.buffer);
    return points.every((point) => point === points[0]);
  }

  /** A drawing by `paint(pen)`, on black. */
  take(paint) {
    this.clear();
    this.pen.save();
    paint(this.pen);
    this.pen.restore();
  }

  find(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height,
    ];
  }

  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.last = this.find(event);
    this.stroke(this.last);
  }

  end() {
    if (!this.last) return;
    this.last = null;
    this.changed();
  }

  stroke(to) {
    const { grey, radius } = this.brush();
    const from = this.last ?? to;
    Object.assign(this.pen, {
      strokeStyle: `rgb(${grey} ${grey} ${grey})`,
      lineWidth: 2 * radius,
      lineCap: "round",
      lineJoin: "round",
    });
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.lineTo(to[0] + 0.01, to[1]);
    this.pen.stroke();
    if (this.last) this.last = to;
  }

  /** Arrow keys move a point, and paint along while shift is held; space paints where it is. */
  press(event) {
    const step = STEPS[event.key];
    if (!step && event.key !== " ") return;
    event.preventDefault();
    const from = this.cursor;
    if (step) this.cursor = from.map((one, axis) => Math.max(0, Math.min(this.canvas.width - 1, one + step[axis])));
    this.canvas.setAttribute(
      "aria-label",
      `Drawing board, at column ${Math.round(this.cursor[0])}, row ${Math.round(this.cursor[1])}. Arrow keys move, space paints.`,
    );
    if (event.key === " " || event.shiftKey) {
      this.last = from;
      this.stroke(this.cursor);
      this.end();
    } else {
      this.canvas.dispatchEvent(new CustomEvent("cursor", { detail: this.cursor }));
    }
  }
}
