// Pieces of clothing drawn by a few strokes, as samples.

const shape =
  (grey, ...points) =>
  (pen) => {
    pen.fillStyle = `rgb(${grey} ${grey} ${grey})`;
    pen.beginPath();
    points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.fill();
  };
const all =
  (...parts) =>
  (pen) =>
    parts.forEach((part) => part(pen));

/** Name to `paint(pen)`, on a board of 28 by 28 points. */
export const CLOTHES = {
  Trousers: all(
    shape(175, [9, 2], [19, 2], [20, 26], [15.5, 26], [14, 9], [12.5, 26], [8, 26]),
    shape(120, [9, 2], [19, 2], [19, 4], [9, 4]),
  ),
  Pullover: all(
    shape(
      165,
      [10, 3],
      [18, 3],
      [23, 6],
      [26, 24],
      [22, 25],
      [20, 12],
      [20, 26],
      [8, 26],
      [8, 12],
      [6, 25],
      [2, 24],
      [5, 6],
    ),
    shape(60, [11, 3], [17, 3], [14, 5.5]),
  ),
  Dress: shape(190, [11, 2], [13, 4], [15, 4], [17, 2], [18, 10], [17, 13], [20, 26], [8, 26], [11, 13], [10, 10]),
  Sneaker: all(
    shape(200, [2, 12], [6, 11], [10, 14], [16, 15], [24, 17], [26, 20], [2, 20]),
    shape(110, [2, 20], [26, 20], [26, 22], [2, 22]),
    shape(90, [9, 13.5], [11, 14.5], [10, 16], [8, 15]),
  ),
  Bag: all(shape(180, [3, 11], [25, 11], [26, 25], [2, 25]), (pen) => {
    Object.assign(pen, { strokeStyle: "rgb(150 150 150)", lineWidth: 1.6 });
    pen.beginPath();
    pen.arc(14, 11, 6.5, Math.PI, 0);
    pen.stroke();
  }),
  "Ankle boot": all(
    shape(185, [13, 3], [23, 3], [24, 14], [25, 24], [3, 24], [3, 20], [8, 17], [13, 14]),
    shape(90, [3, 22.5], [25, 22.5], [25, 25], [3, 25]),
  ),
};
