// Says in words what a placement is and what a change of it is. Pure: it knows neither the page nor the service.

export const KINDS = {
  "for-user": ["For the shopper", "What this shopper may want next. Starts from the shopper."],
  similar: ["Similar items", "Items like the product of the page. Starts from the product, else the cart."],
  together: ["Goes well with", "What others take together with the product or the cart."],
  trending: ["Trending", "Items whose events rise, against the days before."],
  popular: ["Popular", "What was taken most lately."],
  new: ["New", "What came lately, near the shopper's interest."],
  "buy-again": ["Buy again", "What the shopper bought and may need again by now."],
  "recently-viewed": ["Recently viewed", "What the shopper saw last."],
};
export const kindName = (kind) => KINDS[kind]?.[0] ?? kind;

const DEFAULTS = {
  length: 10,
  filter: null,
  category: null,
  min_price: null,
  max_price: null,
  exclude_variants: false,
  diversity: 0,
  fallbacks: null, // depends on the kind
  window_s: 604_800,
  cache_s: 0,
  rules: [],
};
const DAY_S = 86_400;
const LABELS = {
  kind: "Kind of list",
  length: "Items",
  filter: "Only items where",
  category: "Category",
  min_price: "Lowest price",
  max_price: "Highest price",
  exclude_variants: "Leave out variants",
  diversity: "Variety",
  fallbacks: "Fill up with",
  window_s: "Days compared",
  cache_s: "Cache, seconds",
};

/** A placement with all of its fields, as the service would read it. */
export function whole(placement) {
  const fallbacks = placement.kind === "popular" ? [] : ["popular"];
  const filled = { ...DEFAULTS, ...placement };
  return { ...filled, fallbacks: placement.fallbacks ?? fallbacks, rules: (placement.rules ?? []).map(bare) };
}

// A rule without the fields that are null.
function bare(rule) {
  const [[kind, fields]] = Object.entries(rule).filter(([, value]) => value !== null && value !== undefined);
  const set = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined);
  return { [kind]: Object.fromEntries(set) };
}

export const same = (one, other) => canonical(one) === canonical(other);
const canonical = (value) => JSON.stringify(value, (_, inner) => (isObject(inner) ? sorted(inner) : inner));
const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const sorted = (value) => Object.fromEntries(Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1)));

function fieldText(name, value) {
  if (name === "kind") return kindName(value);
  if (name === "fallbacks") return value.length ? value.map(kindName).join(", ") : "nothing";
  if (value === null || value === "") return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (name === "window_s") return String(Math.round((100 * value) / DAY_S) / 100);
  return String(value);
}

/** A rule in words; `titleOf` gives the title of an item_id. */
export function ruleText(rule, titleOf = (itemId) => itemId) {
  if (rule.boost) {
    const { where, by } = rule.boost;
    return `${by < 1 ? "Bury" : "Boost"} ×${by}: ${where || "…"}`;
  }
  if (rule.pin) {
    const { item_id: itemId, where, place, from, until } = rule.pin;
    const what = where === undefined ? `“${itemId ? titleOf(itemId) : "…"}”` : `the best item where ${where || "…"}`;
    const times = [from === undefined ? "" : ` from ${moment(from)}`, until === undefined ? "" : ` until ${moment(until)}`];
    return `Pin ${what} to place ${place ?? "…"}${times.join("")}`;
  }
  if (rule.at_least) return `At least ${rule.at_least.count} where ${rule.at_least.where || "…"}`;
  if (rule.at_most) return `At most ${rule.at_most.count} of each ${rule.at_most.attribute}`;
  return JSON.stringify(rule);
}

const moment = (value) =>
  new Date(typeof value === "number" ? value * 1000 : value).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

/** What differs between two placements, each change as a line; none where they are the same. */
export function changes(before, after, titleOf) {
  const old = before === null ? null : whole(before);
  const now = whole(after);
  const lines = [];
  for (const name of Object.keys(LABELS)) {
    if (old === null && (same(now[name], DEFAULTS[name]) || name === "fallbacks")) continue;
    if (old === null) lines.push(`${LABELS[name]}: ${fieldText(name, now[name])}`);
    else if (!same(old[name], now[name])) {
      lines.push(`${LABELS[name]}: ${fieldText(name, old[name])} → ${fieldText(name, now[name])}`);
    }
  }
  return [...lines, ...ruleChanges(old?.rules ?? [], now.rules, titleOf)];
}

function ruleChanges(before, after, titleOf) {
  const text = (rule) => ruleText(rule, titleOf);
  const left = before.map((rule) => ({ rule, key: canonical(rule) }));
  const added = [];
  const kept = [];
  for (const [place, rule] of after.entries()) {
    const found = left.findIndex((one) => one?.key === canonical(rule));
    if (found < 0) added.push([place, rule]);
    else {
      kept.push(found);
      left[found] = null;
    }
  }
  const lines = [];
  const removed = left.flatMap((one, place) => (one === null ? [] : [[place, one.rule]]));
  for (const [place, rule] of removed) {
    // A rule of the same kind at the same place was changed.
    const changed = added.findIndex(([other, now]) => other === place && Object.keys(now)[0] === Object.keys(rule)[0]);
    if (changed < 0) lines.push(`Rule ${place + 1} removed: ${text(rule)}`);
    else {
      const [[, now]] = added.splice(changed, 1);
      lines.push(`Rule ${place + 1}: ${text(rule)} → ${text(now)}`);
    }
  }
  lines.push(...added.map(([place, rule]) => `Rule ${place + 1} added: ${text(rule)}`));
  if (kept.some((place, index) => index && kept[index - 1] > place)) lines.push("The order of the rules");
  return lines;
}
