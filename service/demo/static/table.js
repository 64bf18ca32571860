// A table of days and their views, as people have it; what it cannot mean for certain is explained with its line.

import { Mistake } from "./conversation.js";

export const DAY = 86_400_000;
export const dayName = d3.utcFormat("%A, %-d %B %Y");
export const isoDay = d3.utcFormat("%Y-%m-%d");

// Forms of a day that can be read in one way only.
const DAYS = ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"].map((form) => [d3.utcParse(form), d3.utcFormat(form)]);

/** The text of a file; spreadsheets also write UTF-16, with its mark. */
export async function readText(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const mark =
    bytes[0] === 0xff && bytes[1] === 0xfe ? "utf-16le" : bytes[0] === 0xfe && bytes[1] === 0xff ? "utf-16be" : "";
  if (!mark && bytes.includes(0))
    throw new Mistake(`“${file.name}” is not a text file. Save the table as CSV, and open that.`);
  return new TextDecoder(mark || "utf-8").decode(bytes);
}

/** Days and counts of a table. Lines are counted as an editor does. */
export function readTable(text) {
  const { separator, body, skipped } = separate(text);
  if (body.split('"').length % 2 === 0)
    throw new Mistake("The table opens a quotation mark that is never closed; a line may be cut off.");
  const lines = d3
    .dsvFormat(separator)
    .parseRows(body)
    .map((cells, at) => ({ cells: cells.map((cell) => cell.trim()), line: at + 1 + skipped }));
  const rows = lines.filter(({ cells }) => cells.some(Boolean));
  if (!rows.length)
    throw new Mistake("The table is empty. Each line needs a day and its views, for example 2024-01-31,20500.");
  const columns = findColumns(rows);
  const days = [];
  for (const { cells, line } of rows) days.push(readRow(cells, line, columns, days.at(-1)?.date));
  return days;
}

/** What parts the cells: as Excel's own line says, else what the first line has most of. */
function separate(text) {
  const told = /^sep=(.)\r?\n/i.exec(text);
  if (told) return { separator: told[1], body: text.slice(told[0].length), skipped: 1 };
  const first = text.trimStart().split("\n", 1)[0];
  const separator = d3.greatest([",", ";", "\t"], (one) => first.split(one).length);
  return { separator, body: text, skipped: 0 };
}

function findColumns(rows) {
  const [{ cells, line }] = rows;
  const names = cells.map((cell) => cell.toLowerCase());
  if (readDay(cells[0])) return { date: 0, views: 1, width: cells.length };
  const columns = { date: names.indexOf("date"), views: names.indexOf("views"), width: cells.length };
  if (columns.date < 0 && columns.views < 0 && cells.some((cell) => /\d/.test(cell)))
    return { ...columns, date: 0, views: 1 };
  for (const name of ["date", "views"]) {
    if (columns[name] < 0)
      throw new Mistake(
        `Line ${line}: there is no column “${name}” among ${cells.map((cell) => `“${cell}”`).join(", ")}.`,
      );
    if (names.lastIndexOf(name) !== columns[name])
      throw new Mistake(`Line ${line}: there are several columns “${name}”; leave one.`);
  }
  rows.shift();
  if (!rows.length) throw new Mistake("The table has a head and no days.");
  return columns;
}

/** A day at midnight, UTC; undefined for what is none, or may be two. */
function readDay(text) {
  const [parse] = DAYS.find(([read, write]) => read(text) && write(read(text)) === text) ?? [];
  return parse?.(text);
}

function readRow(cells, line, { date: at, views: beside, width }, before) {
  const [day, text] = [cells[at] ?? "", cells[beside] ?? ""];
  if (cells.length !== width)
    throw new Mistake(
      `Line ${line} has ${cells.length} cells, the first line has ${width}. A number is written without separators: 2305, not 2,305.`,
    );
  const date = readDay(day);
  if (!date) {
    const total = /^(grand )?totals?$/i.test(day) ? " Take the line of the total away." : "";
    throw new Mistake(`Line ${line}: “${day}” is not a day; write it as 2024-01-31.${total}`);
  }
  if (text === "" || !Number.isFinite(Number(text))) {
    const plain = text.replace(/[ ,.'’\u00a0\u202f]/g, "");
    const hint = plain !== text && /^\d+$/.test(plain) ? ` Write it without separators: ${plain}.` : "";
    throw new Mistake(`Line ${line}, ${dayName(date)}: “${text}” is not a number of views.${hint}`);
  }
  if (before && date - before !== DAY) {
    const expected = isoDay(new Date(+before + DAY));
    throw new Mistake(
      `Line ${line}: after ${isoDay(before)} the day ${expected} is expected, found ${day}. Every day needs a line, once, the oldest first.`,
    );
  }
  return { date, views: Number(text), line };
}
