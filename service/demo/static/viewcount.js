// View counts: a table of days, and the days to come.

import { calmly, fill, fillTable, find, takeDrops } from "./dom.js";
import { Conversation } from "./conversation.js";
import { jsonRequest } from "./request.js";
import { drawForecast } from "./chart.js";
import { DAY, dayName, isoDay, readTable, readText } from "./table.js";

const MONDAY = Date.UTC(2024, 0, 1);
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
  const read = async (file) => {
    sample.value = "";
    try {
      table.value = await readText(file);
    } catch (error) {
      talk.explain(error);
      return;
    }
    talk.ask();
  };
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
