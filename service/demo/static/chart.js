// The chart of a forecast: the past in red, what is to come in blue, with its interval.

const MARGIN = { top: 12, right: 26, bottom: 30, left: 56 };
const HEIGHT = 320;
const SHOWN_DAYS = 119;
const dayName = d3.utcFormat("%a %-d %b %Y");
const count = d3.format(",.0f");

let redraw = () => {};
new ResizeObserver(() => redraw()).observe(document.getElementById("chart"));

/**
 * @param place Where it goes.
 * @param past Days as `{date, views}`, the oldest first.
 * @param coming Days as `{date, views, lower, upper}`.
 * @param readout Where the day under the pointer is told.
 */
export function drawForecast(place, past, coming, readout) {
  redraw = () => place.clientWidth && draw(place, past.slice(-SHOWN_DAYS), coming, readout);
  redraw();
}

function draw(place, past, coming, readout) {
  const width = Math.max(280, place.clientWidth);
  const days = [...past, ...coming];
  const x = d3.scaleUtc([days[0].date, days.at(-1).date], [MARGIN.left, width - MARGIN.right]);
  const top = d3.max(days, (day) => day.upper ?? day.views);
  const y = d3.scaleLinear([0, Math.max(1, top)], [HEIGHT - MARGIN.bottom, MARGIN.top]).nice();
  const svg = d3.create("svg").attr("viewBox", [0, 0, width, HEIGHT]).attr("role", "img");
  svg.append("title").text(describe(past, coming));
  drawAxes(svg, x, y, width);
  drawDays(svg, x, y, past, coming);
  follow(svg, x, days, readout, describe(past, coming));
  place.replaceChildren(svg.node());
}

function drawAxes(svg, x, y, width) {
  svg
    .append("g")
    .attr("transform", `translate(0,${HEIGHT - MARGIN.bottom})`)
    .call(
      d3
        .axisBottom(x)
        .ticks(Math.max(3, width / 95), d3.utcFormat("%-d %b"))
        .tickSizeOuter(0),
    );
  svg
    .append("g")
    .attr("transform", `translate(${MARGIN.left},0)`)
    .call(
      d3
        .axisLeft(y)
        .ticks(5)
        .tickFormat(d3.format("~s"))
        .tickSize(MARGIN.left + MARGIN.right - width)
        .tickPadding(8),
    )
    .call((axis) => axis.select(".domain").remove());
}

function drawDays(svg, x, y, past, coming) {
  const at = (day) => x(day.date);
  const line = d3.line(at, (day) => y(day.views));
  const last = past.at(-1);
  const joined = [{ ...last, lower: last.views, upper: last.views }, ...coming];
  const dots = (days, name) =>
    svg
      .append("g")
      .selectAll("circle")
      .data(days)
      .join("circle")
      .attr("class", name)
      .attr("cx", at)
      .attr("cy", (day) => y(day.views))
      .attr("r", days.length > 60 ? 1.8 : 2.4);
  svg
    .append("path")
    .attr("class", "band")
    .attr(
      "d",
      d3.area(
        at,
        (day) => y(day.lower),
        (day) => y(day.upper),
      )(joined),
    );
  svg
    .append("line")
    .attr("class", "today")
    .attr("x1", at(last))
    .attr("x2", at(last))
    .attr("y1", MARGIN.top)
    .attr("y2", HEIGHT - MARGIN.bottom);
  svg.append("path").attr("class", "past").attr("d", line(past));
  svg.append("path").attr("class", "forecast").attr("d", line(joined));
  dots(past, "past");
  dots(coming, "forecast");
}

function follow(svg, x, days, readout, usual) {
  const cursor = svg
    .append("line")
    .attr("class", "cursor")
    .attr("y1", MARGIN.top)
    .attr("y2", HEIGHT - MARGIN.bottom)
    .attr("visibility", "hidden");
  readout.textContent = usual;
  svg.on("pointermove", (event) => {
    const date = x.invert(d3.pointer(event)[0]);
    const day = d3.least(days, (one) => Math.abs(one.date - date));
    cursor.attr("x1", x(day.date)).attr("x2", x(day.date)).attr("visibility", "visible");
    const range = day.upper === undefined ? "" : `, between ${count(day.lower)} and ${count(day.upper)}`;
    readout.textContent = `${dayName(day.date)}: ${count(day.views)} views${range}`;
  });
  svg.on("pointerleave", () => {
    cursor.attr("visibility", "hidden");
    readout.textContent = usual;
  });
}

function describe(past, coming) {
  const [first, last] = [past[0], coming.at(-1)];
  return (
    `${past.length} days from ${dayName(first.date)}, then ${coming.length} forecast: ` +
    `${count(coming[0].views)} views on ${dayName(coming[0].date)}, ${count(last.views)} on ${dayName(last.date)}.`
  );
}
