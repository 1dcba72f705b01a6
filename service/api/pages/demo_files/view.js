// Makes elements from data. Titles and ids come from the shop: they become text, never markup.

export const SOURCES = {
  generative: "Next in sequence",
  dense: "Fits the history",
  explicit: "Their own taste",
  group: "Shoppers like them",
  transition: "Comes next",
  cooccurrence: "Taken together",
  content: "Much alike",
  popular: "Popular",
};
const HUES = [8, 25, 150, 165, 180, 195, 210, 225, 245, 265, 285, 310, 330, 350]; // without the muddy ones
const MAX_CALLS = 8;
const price = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// FNV-1a: the same category has the same colour on every page.
function hash(text) {
  let value = 0x811c9dc5;
  for (const character of text) value = Math.imul(value ^ character.codePointAt(0), 0x01000193) >>> 0;
  return value;
}

function paint(art, shownItem) {
  const own = hash(shownItem.item_id);
  // A category has a colour, and each of its items a shade of it.
  const hue = HUES[hash(shownItem.category ?? shownItem.brand ?? "") % HUES.length];
  art.style.setProperty("--hue", hue - 16 + ((own >>> 4) % 33));
  art.style.setProperty("--x", `${15 + (own % 70)}%`);
  art.style.setProperty("--y", `${10 + ((own >>> 8) % 70)}%`);
  art.style.setProperty("--turn", `${(own >>> 16) % 180}deg`);
}

const initial = (shownItem) => [...(shownItem.category ?? shownItem.title)][0] ?? "";

/** Makes a recommended item. `itemOf` returns the card of an item_id; `before` has the ranks of the previous list, or
 * is null. */
export function cardOf(recommended, itemOf, before) {
  const shownItem = itemOf(recommended.item_id);
  const card = document.getElementById("card").content.cloneNode(true).querySelector(".card");
  const part = (className) => card.querySelector(`.${className}`);
  card.dataset.itemId = recommended.item_id;
  paint(part("art"), shownItem);
  part("initial").textContent = initial(shownItem);
  part("rank").textContent = recommended.rank;
  part("source").textContent = SOURCES[recommended.source] ?? recommended.source;
  part("title").textContent = shownItem.title;
  part("maker").textContent = [shownItem.brand, shownItem.category].filter(Boolean).join(" · ");
  part("price").textContent = shownItem.price == null ? "" : price.format(shownItem.price);
  part("look").setAttribute("aria-label", `Look at ${shownItem.title}`);
  part("buy").setAttribute("aria-label", `Buy ${shownItem.title}`);
  part("reasons").append(...recommended.reasons.map((reason) => reasonOf(reason, recommended.item_id)));
  if (before) showChange(part("change"), card, recommended.rank, before.get(recommended.item_id));
  return card;
}

function showChange(badge, card, rank, was) {
  if (was === undefined) {
    card.classList.add("fresh");
    badge.textContent = "new";
  } else if (was !== rank) {
    badge.textContent = was > rank ? `▲ ${was - rank}` : `▼ ${rank - was}`;
    badge.setAttribute("aria-label", `was number ${was}`);
  }
}

function reasonOf(reason, itemId) {
  const row = element("li");
  row.dataset.channel = reason.channel;
  row.append(element("b", "", SOURCES[reason.channel] ?? reason.channel), reason.text);
  const [path] = reason.paths;
  if (path) {
    const between = path.similar_users
      ? [`${path.similar_users} similar shoppers`]
      : path.live_users
        ? [`${path.live_users} shoppers since the release`]
        : [];
    row.append(element("code", "path", ["shopper", path.item_id, ...between, itemId].join(" → ")));
  }
  return row;
}

export function historyEntry(shownItem) {
  const row = element("li", "past-item");
  const art = element("div", "art");
  art.setAttribute("aria-hidden", "true");
  paint(art, shownItem);
  art.append(element("span", "initial", initial(shownItem)));
  row.append(art, element("span", "title", shownItem.title));
  return row;
}

/** Makes a chip for each interest, fuller for more items; new interests are highlighted. */
export function showWords(list, interests, none) {
  const before = new Set([...list.children].map((chip) => chip.dataset.words));
  const most = Math.max(1, ...interests.map((one) => one.items));
  const chips = interests.map((one) => {
    const chip = element("li", "chip", one.words);
    chip.dataset.words = one.words;
    chip.style.setProperty("--share", `${Math.round((100 * one.items) / most)}%`);
    chip.append(element("span", "count", one.items));
    if (before.size && !before.has(one.words)) chip.classList.add("fresh");
    return chip;
  });
  list.replaceChildren(...(chips.length ? chips : [element("li", "quiet", none)]));
}

export function showCall(list, { method, path, status, ms }) {
  const row = element("li", "call");
  const told = decodeURI(path.replaceAll("%25", "%2525")).slice(0, 120);
  row.append(element("code", "method", method), element("code", "path", told));
  row.append(element("span", "status", status), element("span", "ms", `${ms.toFixed(1)} ms`));
  list.prepend(row);
  while (list.children.length > MAX_CALLS) list.lastElementChild.remove();
}
