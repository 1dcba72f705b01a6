/** Imports any number of records in parts, and reads an export's lines as they arrive. */

import { IsrfError, invalid, unreadable } from "./errors.js";
import { NOT_NOW } from "./events.js";
import { backOffMs, inTime, parsed, pause } from "./requests.js";
import { isObject } from "./values.js";

/**
 * @import { Imported, Line } from "./types.js"
 * @import { Requests } from "./requests.js"
 */

const MAX_LINES = 1000; // of one request
const MAX_CHARACTERS = 1024 * 1024;
const MAX_PROBLEMS = 1000; // named by a report
const MAX_LINE = 16 * 1024 * 1024;

/**
 * Sends records in parts of bounded size, each again until it is answered; holds one part at a time.
 *
 * @param {Requests} requests
 * @param {string} path
 * @param {Iterable<unknown> | AsyncIterable<unknown>} records
 * @param {(record: unknown, where: string) => Record<string, unknown>} convert
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<Imported>}
 */
export async function importRecords(requests, path, records, convert, signal) {
  const source = iteratorOf(records);
  const report = emptyReport();
  const end = performance.now() + requests.bulk.deadlineMs;
  /** @type {Record<string, unknown>[]} */
  let part = [];
  try {
    for (;;) {
      part = [];
      const lines = await fill(source, part, convert, report.lines);
      if (!part.length) return finished(report);
      await importPart(requests, path, lines, report, end, signal);
    }
  } catch (error) {
    if (!(error instanceof IsrfError)) throw error;
    error.report = finished(report);
    error.records = part;
    error.message += ` ${report.lines} records were imported; send error.records and what follows them.`;
    throw error;
  }
}

/**
 * @param {any} records
 * @returns {Iterator<unknown> | AsyncIterator<unknown>}
 */
function iteratorOf(records) {
  const make = typeof records === "object" ? (records?.[Symbol.asyncIterator] ?? records?.[Symbol.iterator]) : undefined;
  if (typeof make !== "function") throw invalid("records", records, "Give an array, an iterable or an async iterable.");
  return make.call(records);
}

/** @returns {Imported} */
function emptyReport() {
  const counts = { lines: 0, accepted: 0, duplicates: 0, refused: 0 };
  return { ...counts, reasons: {}, problems: [], problems_left_out: 0, warnings: [] };
}

/**
 * @param {Imported} report
 * @returns {Imported}
 */
function finished(report) {
  const named = [...report.problems].sort((a, b) => a.line - b.line).slice(0, MAX_PROBLEMS);
  return { ...report, problems: named, problems_left_out: report.refused - named.length };
}

/**
 * Reads records into `part` until it is full; returns their lines.
 *
 * @param {Iterator<unknown> | AsyncIterator<unknown>} source
 * @param {Record<string, unknown>[]} part
 * @param {(record: unknown, where: string) => Record<string, unknown>} convert
 * @param {number} before
 */
async function fill(source, part, convert, before) {
  /** @type {string[]} */
  const lines = [];
  let size = 0;
  while (part.length < MAX_LINES && size < MAX_CHARACTERS) {
    const { done, value } = await source.next();
    if (done) break;
    part.push(convert(value, `records[${before + part.length}]`));
    lines.push(`${JSON.stringify(part[part.length - 1])}\n`);
    size += lines[lines.length - 1].length;
  }
  return lines;
}

/**
 * Sends the lines of one part; sends those again that the store could not accept.
 *
 * @param {Requests} requests
 * @param {string} path
 * @param {string[]} lines
 * @param {Imported} report
 * @param {number} end
 * @param {AbortSignal | null | undefined} signal
 */
async function importPart(requests, path, lines, report, end, signal) {
  const patience = requests.bulk;
  let places = [...lines.keys()];
  for (let tried = 1; places.length; tried++) {
    const text = places.map((place) => lines[place]).join("");
    const answer = await requests.send("POST", path, {
      ...{ text, lines: true, field: "problems", patience, end, signal },
    });
    checkReport(answer, places.length);
    const pauseMs = backOffMs(tried);
    const again = tried < patience.tries && performance.now() + pauseMs < end;
    places = add(report, answer, places, again);
    if (places.length) await pause(pauseMs, signal);
  }
  report.lines += lines.length;
}

/**
 * Counts the answer to some lines of a part; returns the places of those to send again, none without `again`.
 *
 * @param {Imported} report
 * @param {Imported} answer
 * @param {number[]} places of the lines in the part, from 0 on
 * @param {boolean} again
 */
function add(report, answer, places, again) {
  const waiting = answer.problems.filter((one) => again && one.reason === NOT_NOW);
  const left = answer.problems.filter((one) => !waiting.includes(one));
  report.accepted += answer.accepted;
  report.duplicates += answer.duplicates;
  report.refused += answer.refused - waiting.length;
  for (const [reason, count] of Object.entries(answer.reasons)) {
    const final = count - (reason === NOT_NOW ? waiting.length : 0);
    if (final > 0) report.reasons[reason] = (report.reasons[reason] ?? 0) + final;
  }
  report.problems.push(...left.map((one) => ({ ...one, line: report.lines + places[one.line - 1] + 1 })));
  const said = new Set(report.warnings.map((one) => JSON.stringify(one)));
  report.warnings.push(...answer.warnings.filter((one) => !said.has(JSON.stringify(one))));
  return [...new Set(waiting.map((one) => places[one.line - 1]))].sort((a, b) => a - b);
}

/**
 * @param {any} answer
 * @param {number} count
 */
function checkReport(answer, count) {
  const numbers = [answer.lines, answer.accepted, answer.duplicates, answer.refused];
  const known = numbers.every(Number.isInteger) && answer.lines === count && isObject(answer.reasons);
  /** @param {any} one */
  const placed = (one) => isObject(one) && typeof one.reason === "string" && isPlace(one.line, count);
  if (!known || !Array.isArray(answer.warnings) || !answer.problems.every(placed)) {
    throw unreadable(`no report of ${count} lines`);
  }
}

/**
 * @param {unknown} line
 * @param {number} count
 */
const isPlace = (line, count) => typeof line === "number" && Number.isInteger(line) && line >= 1 && line <= count;

/**
 * Yields the lines of an export. A piece must come within `timeoutMs`, the last one before the call's deadline.
 *
 * @param {Requests} requests
 * @param {string} path
 * @param {AbortSignal | null | undefined} signal
 * @returns {AsyncGenerator<Line, void, void>}
 */
export async function* exportLines(requests, path, signal) {
  const opened = await requests.open(path, { patience: requests.bulk, signal });
  let count = 0;
  let started = "";
  try {
    const decoder = new TextDecoder("utf-8", { fatal: true });
    for await (const piece of pieces(opened, signal)) {
      const ends = (started + decoded(decoder, piece, count)).split("\n");
      started = ends.pop() ?? "";
      for (const line of ends) {
        if (!line.trim()) continue;
        const found = parsed(line);
        if (!isObject(found)) throw unreadable(`line ${count + 1} is not a JSON object`);
        count += 1;
        yield found;
      }
      if (started.length > MAX_LINE) throw tooLarge(count + 1);
    }
    started += decoded(decoder, null, count);
    if (started.trim()) throw unreadable(`it ends in the middle of line ${count + 1}`);
  } catch (error) {
    if (error instanceof IsrfError) error.message += ` The export was cut after ${count} lines; begin it again.`;
    throw error;
  } finally {
    opened.abort.abort();
  }
}

/**
 * @param {import("./requests.js").Opened} opened
 * @param {AbortSignal | null | undefined} signal
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* pieces({ response, end, patience }, signal) {
  const reader = response.body?.getReader();
  for (;;) {
    const leftMs = Math.min(patience.timeoutMs, end - performance.now());
    const piece = await inTime(reader ? reader.read() : Promise.reject(new TypeError("no body")), leftMs, signal).catch(
      (error) => {
        throw error instanceof IsrfError ? error : cut(error);
      },
    );
    if (piece.done) return;
    yield piece.value;
  }
}

/**
 * @param {TextDecoder} decoder
 * @param {Uint8Array | null} piece null: the end
 * @param {number} count
 */
function decoded(decoder, piece, count) {
  try {
    return piece === null ? decoder.decode() : decoder.decode(piece, { stream: true });
  } catch {
    throw unreadable(`line ${count + 1} is not UTF-8`);
  }
}

/** @param {unknown} cause */
function cut(cause) {
  const fix = "Check the service and what is between; begin the export again.";
  const name = cause instanceof Error ? cause.name : typeof cause;
  return new IsrfError("client.unreachable", `the answer broke off (${name}).`, { fix });
}

/** @param {number} line */
function tooLarge(line) {
  const fix = "Check baseUrl: the service writes no such line.";
  return new IsrfError("client.too_large", `line ${line} of the export has more than ${MAX_LINE} characters.`, { fix });
}
