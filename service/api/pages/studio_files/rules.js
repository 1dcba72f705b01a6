// The rules of a placement as cards: each with its fields, its order, and what the preview says that it did.

import { combobox } from "./combobox.js";
import { completed } from "./conditions.js";
import { about, button, element, field, input, select } from "./elements.js";

const USUAL = {
  boost: () => ({ boost: { where: "", by: 2 } }),
  bury: () => ({ boost: { where: "", by: 0.5 } }),
  pin: () => ({ pin: { item_id: "", place: 1 } }),
  at_most: () => ({ at_most: { attribute: "brand", count: 2 } }),
  at_least: () => ({ at_least: { where: "", count: 2 } }),
};
const NAMES = { boost: "Boost", bury: "Bury", pin: "Pin", at_most: "At most", at_least: "At least" };

const kindOf = (rule) => Object.keys(rule)[0];
const name = (rule) => (rule.boost && rule.boost.by < 1 ? NAMES.bury : NAMES[kindOf(rule)]);

/** The buttons that add a rule; `add` takes the new one. */
export function addButtons(add) {
  return Object.entries(NAMES).map(([kind, text]) => button(text, () => add(USUAL[kind]()), { label: `Add a rule: ${text}` }));
}

/**
 * The card of a rule. `change()` is called after each change of `rule`, which the card writes to; `act` has what moves
 * or removes the card.
 */
export function ruleCard(rule, place, { shop, change, act, isLast }) {
  const head = element("div", "rule-head", element("span", "number", place + 1), element("h3", "", name(rule) ?? kindOf(rule)));
  const effect = element("span", "effect");
  effect.dataset.rule = place + 1;
  const label = (what) => ({ label: `${what} rule ${place + 1}`, className: "icon" });
  const up = button("↑", () => act.move(place, place - 1), label("Move up"));
  const down = button("↓", () => act.move(place, place + 1), label("Move down"));
  up.disabled = place === 0;
  down.disabled = isLast;
  head.append(effect, up, down, button("✕", () => act.remove(place), label("Remove")));
  const card = element("li", "rule", head);
  card.dataset.path = `rules.${place}`;
  card.dataset.kind = kindOf(rule);
  card.append(...(FIELDS[kindOf(rule)] ?? unknown)(rule, `rules.${place}`, { shop, change, title: head.querySelector("h3") }));
  return card;
}

const FIELDS = {
  boost(rule, path, { shop, change, title }) {
    const by = number(rule.boost, "by", change, { min: 1e-6, max: 1e6, step: "any" });
    by.addEventListener("input", () => (title.textContent = name(rule)));
    return [
      where(rule.boost, `${path}.boost.where`, shop, change),
      field("Score times", by, `${path}.boost.by`, "short"),
    ];
  },

  pin(rule, path, { shop, change }) {
    const { pin } = rule;
    const what = element("div", "grow");
    const choice = select([["item", "one item"], ["where", "the best item where…"]], pin.where === undefined ? "item" : "where");
    const showWhat = () => {
      const isItem = pin.where === undefined;
      what.replaceChildren(isItem ? itemField(pin, `${path}.pin.item_id`, shop, change) : where(pin, `${path}.pin.where`, shop, change));
    };
    choice.addEventListener("change", () => {
      delete pin[choice.value === "item" ? "where" : "item_id"];
      pin[choice.value === "item" ? "item_id" : "where"] = "";
      showWhat();
      change();
    });
    showWhat();
    const row = element("div", "row");
    row.append(
      field("Pin", choice, `${path}.pin`, "grow"),
      field("Place", number(pin, "place", change, { min: 1, max: 200, step: 1 }), `${path}.pin.place`, "short"),
    );
    const times = element("details", "more", element("summary", "", "Only for a time"));
    times.open = pin.from !== undefined || pin.until !== undefined;
    times.append(
      element("div", "row", field("From", time(pin, "from", change), `${path}.pin.from`), field("Until", time(pin, "until", change), `${path}.pin.until`)),
    );
    return [row, what, times];
  },

  at_most(rule, path, { shop, change }) {
    const { at_most: limit } = rule;
    const names = shop.attributes.filter((one) => !["item_id", "title", "price"].includes(one.name)).map((one) => [one.name, one.name]);
    const attribute = select(names, limit.attribute);
    attribute.addEventListener("change", () => {
      limit.attribute = attribute.value;
      change();
    });
    const row = element("div", "row");
    row.append(
      field("At most", number(limit, "count", change, { min: 1, max: 200, step: 1 }), `${path}.at_most.count`, "short"),
      field("items of each", attribute, `${path}.at_most.attribute`, "grow"),
    );
    return [row];
  },

  at_least(rule, path, { shop, change }) {
    const { at_least: quota } = rule;
    return [
      field("At least", number(quota, "count", change, { min: 1, max: 200, step: 1 }), `${path}.at_least.count`, "short"),
      where(quota, `${path}.at_least.where`, shop, change),
    ];
  },
};

// A newer service may have more kinds of rule than this page.
const unknown = (rule) => [
  element("p", "quiet", "This page cannot edit the rule. It stays as it is, or you remove it."),
  element("code", "unknown", JSON.stringify(rule, null, 1)),
];

/** Whether a rule still lacks its condition or its item: nothing is asked of the service before it is there. */
export const isComplete = (rule) => {
  const fields = rule[kindOf(rule)];
  return fields.where !== "" && fields.item_id !== "";
};

// An empty number stays in the rule as null, and the service says that it is missing.
function number(of, key, change, more) {
  const control = input("number", of[key], { inputMode: "decimal", ...more });
  control.addEventListener("input", () => {
    of[key] = control.value === "" ? null : Number(control.value);
    change();
  });
  return control;
}

function where(of, path, shop, change) {
  const control = element("textarea");
  Object.assign(control, { value: of.where, rows: 1, spellcheck: false, placeholder: "brand = '…' AND price < 80" });
  control.addEventListener("input", () => {
    of.where = control.value;
    change();
  });
  const one = field("Items where", control, path, "grow");
  completed(control, shop);
  return one;
}

function itemField(pin, path, shop, change) {
  const control = input("text", pin.item_id ? shop.title(pin.item_id) : "", { spellcheck: false, placeholder: "search a title" });
  const one = field("Item", control, path, "grow");
  const id = element("code", "quiet", pin.item_id);
  const choose = (itemId) => {
    pin.item_id = itemId;
    id.textContent = itemId;
    change();
  };
  itemSearch(control, shop, (card) => {
    control.value = card.title;
    choose(card.item_id);
  });
  // Somebody who knows the id types it, and chooses nothing.
  control.addEventListener("input", () => choose(control.value.trim()));
  one.append(id);
  return one;
}

/** Makes a field suggest items by their titles; `pick` takes the card of the chosen one. */
export function itemSearch(control, shop, pick) {
  const suggest = async (text) => {
    const cards = await shop.search(text.trim());
    return cards.map((card) => ({ label: card.title, detail: about(card), card }));
  };
  return combobox(control, suggest, ({ card }) => pick(card));
}

// A moment with its zone on one side, the browser's own local time on the other.
function time(pin, key, change) {
  const control = input("datetime-local", pin[key] === undefined ? "" : localTime(pin[key]));
  control.addEventListener("input", () => {
    if (control.value === "") delete pin[key];
    else pin[key] = new Date(control.value).toISOString();
    change();
  });
  return control;
}

function localTime(moment) {
  const at = new Date(typeof moment === "number" ? moment * 1000 : moment);
  return new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
