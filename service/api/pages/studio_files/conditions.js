// Completes conditions: names of attributes, comparisons by their type, and values. `completions` is pure.

import { combobox } from "./combobox.js";

const MOST = 8;
const MOST_VALUES = 5;
const PLAIN_NAME = /^[a-z_][a-z0-9_]*$/;
const NAME = String.raw`("(?:[^"]|"")+"|[\p{L}_][\p{L}\p{N}_]*)`;
const BEFORE_VALUE = new RegExp(String.raw`${NAME}\s*(?:=|<>|!=|<=?|>=?|~\*?|\bI?LIKE|\bIN\s*\([^()]*)\s*$`, "iu");
const AFTER_NAME = new RegExp(String.raw`(?:^|[\s(])${NAME}\s+$`, "u");
const WORD = /[\p{L}\p{N}_]+$/u;
const KEYWORDS = new Set("and or not in is null like ilike between true false interval now".split(" "));
const COMPARISONS = {
  number: ["< ", "> ", "BETWEEN  AND ", "IS NOT NULL"],
  text: ["= ''", "<> ''", "IN ('')", "ILIKE '%%'", "IS NOT NULL"],
  time: ["> now - INTERVAL '30 days'", "< now", "IS NOT NULL"],
  boolean: ["= true", "= false"],
  texts: ["IS NOT NULL"],
};

const quoted = (text) => `'${text.replaceAll("'", "''")}'`;
const named = (name) => (PLAIN_NAME.test(name) && !KEYWORDS.has(name) ? name : `"${name.replaceAll('"', '""')}"`);
const unnamed = (text) => (text.startsWith('"') ? text.slice(1, -1).replaceAll('""', '"') : text);
const holds = (value, typed) => typeof value === "string" && value.toLowerCase().includes(typed.toLowerCase());
const condition = ({ name, type }, value) =>
  type === "texts" ? `${quoted(value)} IN ${named(name)}` : `${named(name)} = ${quoted(value)}`;

function detail({ type, items, examples }) {
  if (type === "number" && examples.length) return `${examples[0]} to ${examples.at(-1)}`;
  return `${type}, ${items.toLocaleString("en")} items`;
}

/** What may follow at the caret: options with `label`, `detail`, and the text `insert` that replaces `from` to `to`. */
export function completions(text, caret, attributes) {
  const before = text.slice(0, caret);
  const start = openText(before);
  const options = start < 0 ? names(before, caret, attributes) : values(text, caret, start, attributes);
  return options.slice(0, MOST);
}

// Where a text begins that has not ended yet, else -1; two quotes in a text stand for one.
function openText(before) {
  let start = -1;
  for (let place = 0; place < before.length; place++) {
    if (before[place] !== "'") continue;
    if (start < 0) start = place;
    else if (before[place + 1] === "'") place += 1;
    else start = -1;
  }
  return start;
}

// Inside of a text in single quotes.
function values(text, caret, start, attributes) {
  const typed = text.slice(start + 1, caret).replaceAll("''", "'");
  const name = text.slice(0, start).match(BEFORE_VALUE)?.[1];
  const place = { from: start, to: text[caret] === "'" ? caret + 1 : caret };
  if (name !== undefined) {
    const attribute = attributes.find((one) => one.name === unnamed(name));
    const found = (attribute?.examples ?? []).filter((value) => holds(value, typed));
    return found.map((value) => ({ label: value, detail: attribute.name, insert: quoted(value), ...place }));
  }
  return attributes
    .filter((one) => one.type === "texts")
    .flatMap((one) => one.examples.filter((value) => holds(value, typed)).map((value) => [one, value]))
    .map(([one, value]) => ({ label: value, detail: one.name, insert: condition(one, value), ...place }));
}

// Outside of quotes: a name, a comparison after one, or a value that nobody has named yet.
function names(before, caret, attributes) {
  const place = { from: caret, to: caret };
  const after = before.match(AFTER_NAME)?.[1];
  const of = after === undefined ? undefined : attributes.find((one) => one.name === unnamed(after));
  if (of) return COMPARISONS[of.type].map((text) => ({ label: text.trim(), detail: of.type, insert: text, ...place }));
  const word = before.match(WORD)?.[0] ?? "";
  if (KEYWORDS.has(word.toLowerCase()) || (word === "" && before.trim() !== "")) return [];
  place.from = caret - word.length;
  const found = attributes.filter((one) => one.name.toLowerCase().includes(word.toLowerCase()));
  const byName = found.map((one) => ({ label: one.name, detail: detail(one), insert: `${named(one.name)} `, ...place }));
  if (word.length < 2) return byName;
  const byValue = attributes
    .filter((one) => !["item_id", "title"].includes(one.name))
    .flatMap((one) => one.examples.filter((value) => holds(value, word)).map((value) => condition(one, value)))
    .slice(0, MOST_VALUES)
    .map((insert) => ({ label: insert, detail: "", insert, ...place }));
  return [...byName.slice(0, MOST - byValue.length), ...byValue];
}

/** Makes a field suggest the rest of a condition; its other listeners hear of a chosen one as of typed text. */
export function completed(control, shop) {
  return combobox(
    control,
    async (text, caret) => completions(text, caret, shop.attributes),
    ({ insert, from, to }) => {
      control.setRangeText(insert, from, to, "end");
      // The caret stands where the value goes.
      const gap = insert.search(/''|%%|BETWEEN  /);
      if (gap >= 0) {
        const caret = from + gap + (insert.startsWith("BETWEEN") ? "BETWEEN ".length : 1);
        control.setSelectionRange(caret, caret);
      }
      control.dispatchEvent(new Event("input", { bubbles: true }));
    },
  );
}
