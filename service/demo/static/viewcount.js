// View counts: a table of days, and the days to come.

import { calmly, fill, fillTable, find, takeDrops } from "./dom.js";
import { Conversation, Mistake } from "./conversation.js";
import { jsonRequest } from "./request.js";
import { drawForecast } from "./chart.js";

const DAY = 86_400_000;
const MONDAY = Date.UTC(2024, 0, 1);
const dayName = d3.utcFormat("%A, %-d %B %Y");
const isoDay = d3.utcFormat("%Y-%m-%d");
const count = d3.format(",.0f");

const weekly = (days, count) => Array.from({ length: days }, (_, day) => Math.round(count(day, day % 7)));
const SAMPLES = {
  growing: ["Eight growing weeks", (example) => example],
  small: [
    "A small channel",
    () => weekly(84, (day, weekday) => 40 + 12 * Math.sin(day / 9) + (weekday > 4 ? 25 : (day * 7) % 11)),
  ],
  hit: [
    "After a hit",
    () =>
      weekly(70, (day, weekday) => 3000 + (weekday > 4 ? -700 : 0) + (day > 51 ? 24000 * Math.exp((51 - day) / 5) : 0)),
  ],
};

/** Days and counts of a table. Lines are counted as an editor does. */
export function readTable(text) {
  const separator = text.includes(";") && !text.includes(",") ? ";" : text.includes("\t") ? "\t" : ",";
  const lines = d3
    .dsvFormat(separator)
    .parseRows(text)
    .map((cells, at) => ({ cells: cells.map((cell) => cell.trim()), line: at + 1 }));
  const rows = lines.filter(({ cells }) => cells.some(Boolean));
  if (!rows.length)
    throw new Mistake("The table is empty. Each line needs a day and its views, for example 2024-01-31,20500.");
  const columns = findColumns(rows);
  return rows.map(({ cells, line }, place) => readRow(cells, line, columns, rows[place - 1]?.cells[columns.date]));
}

function findColumns(rows) {
  const head = rows[0].cells.map((cell) => cell.toLowerCase());
  if (!head.some((cell) => cell === "date" || cell === "views")) return { date: 0, views: 1 };
  const columns = { date: head.indexOf("date"), views: head.indexOf("views") };
  for (const [name, place] of Object.entries(columns)) {
    if (place < 0)
      throw new Mistake(`Line ${rows[0].line}: there is no column “${name}”; the columns are date and views.`);
  }
  rows.shift();
  if (!rows.length) throw new Mistake("The table has a head and no days.");
  return columns;
}

function readRow(cells, line, columns, before) {
  const [day, views] = [cells[columns.date] ?? "", cells[columns.views] ?? ""];
  const date = d3.utcParse("%Y-%m-%d")(day);
  if (!date || isoDay(date) !== day) throw new Mistake(`Line ${line}: “${day}” is not a day; write it as 2024-01-31.`);
  if (views === "" || !Number.isFinite(Number(views)))
    throw new Mistake(`Line ${line}, ${dayName(date)}: “${views}” is not a number of views.`);
  if (before && date - Date.parse(before) !== DAY) {
    const expected = isoDay(new Date(Date.parse(before) + DAY));
    throw new Mistake(
      `Line ${line}: after ${before} the day ${expected} is expected, found ${day}. Every day needs a line, once, the oldest first.`,
    );
  }
  return { date, views: Number(views), line };
}

export async function open(panel, models) {
  const [table, horizon, sample] = ["#views", "#horizon", "#views-sample"].map((one) => find(one, panel));
  let past = [];
  const place = ([field, day]) => {
    if (field === "horizon") return "The days to forecast";
    if (day === undefined) return `The table, with ${past.length} ${past.length === 1 ? "day" : "days"}`;
    return `Line ${past[day].line}, ${dayName(past[day].date)}`;
  };
  const talk = new Conversation(panel, models, {
    request: () => {
      past = readTable(table.value);
      return jsonRequest({ views: past.map(({ views }) => views), horizon: Number(horizon.value) });
    },
    show: async (prediction, model) => show(past, prediction, (await talk.page("/assets", model)).coverage),
    place,
  });
  const ask = calmly(() => talk.ask());
  const example = (await talk.page()).example.request.instances[0].views;
  fill(sample, [...Object.entries(SAMPLES).map(([name, [text]]) => [name, text]), ["", "your own"]]);
  const take = () => {
    if (!sample.value) return;
    const views = SAMPLES[sample.value][1](example);
    table.value = ["date,views", ...views.map((one, day) => `${isoDay(new Date(MONDAY + day * DAY))},${one}`)].join(
      "\n",
    );
    talk.ask();
  };
  sample.addEventListener("change", take);
  table.addEventListener("input", () => ((sample.value = ""), ask()));
  horizon.addEventListener("input", () => ((find("#horizon-shown").value = horizon.value), ask()));
  const read = async (file) => ((table.value = await file.text()), (sample.value = ""), talk.ask());
  find("#views-file", panel).addEventListener("change", ({ target }) => target.files.length && read(target.files[0]));
  takeDrops(find("form", panel), read);
  take();
  return talk;
}

function show(past, { forecast, lower, upper }, coverage) {
  const last = past.at(-1).date;
  const coming = forecast.map((views, day) => ({
    date: new Date(+last + (day + 1) * DAY),
    views,
    lower: lower[day],
    upper: upper[day],
  }));
  const percent = `${Math.round(100 * (coverage ?? 0.9))} % interval`;
  find("#interval-name").textContent = percent;
  drawForecast(find("#chart"), past, coming, find("#chart-readout"));
  const rows = coming.map((day) => [dayName(day.date), count(day.views), `${count(day.lower)} to ${count(day.upper)}`]);
  fillTable(find("#forecast-table"), [["day", "views", percent], ...rows]);
}
