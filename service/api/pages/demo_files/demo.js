// The demo page: shows a shopper's state, the recommendations with their reasons, and what a click changes.

import { IsrfClient, IsrfError } from "./client/index.js";
import { cardOf, historyEntry, showCall, showWords } from "./view.js";

const NUM_ITEMS = 12;
const NUM_PAST = 12;
const NUM_FIRST = 10; // items of a list that a shopper sees
const NUM_FAR = 100; // items of the list that others change
const BY_TAKERS = new Set(["transition", "cooccurrence"]);
const OTHERS = [1, 2, 3, 4, 5];
const COUNTED_MS = 1000; // what others did counts within a second
const LOOKS = 5; // on a busy machine it may take longer
const at = (id) => document.getElementById(id);
const RESTS_ON = {
  sequence: "from their own history",
  session: "from this visit",
  group: "from shoppers like them",
  "category-popular": "popular items of the category",
  popular: "popular items, for nobody knows them yet",
};

// A person at the demo can wait longer than a shop's page.
const isrf = new IsrfClient("", { fetch: measured, timeoutMs: 20_000, deadlineMs: 60_000 });
const items = new Map(); // item_id -> what to show of it
let turn = 0; // an answer that comes after the next question is dropped
let shown = { userId: "", ranks: new Map(), recommendationId: undefined };
let asked = ""; // who the address names
let lastMs = 0;

async function measured(url, request) {
  const began = performance.now();
  let status = "–";
  try {
    const response = await fetch(url, request);
    status = response.status;
    // The body is part of the answer.
    await response.clone().arrayBuffer();
    return response;
  } finally {
    lastMs = performance.now() - began;
    showCall(at("calls"), { method: request.method, path: url, status, ms: lastMs });
  }
}

async function learn(itemIds) {
  const missing = [...new Set(itemIds)].filter((id) => !items.has(id));
  if (missing.length === 0) return;
  const answer = await isrf.post("/demo/items", { item_ids: missing }, "items");
  for (const item of answer.items) items.set(item.item_id, item);
}

const item = (id) => items.get(id) ?? { item_id: id, title: id };

async function show(userId, told) {
  const mine = ++turn;
  at("list").setAttribute("aria-busy", "true");
  const answer = await isrf.recommend(userId, { n: NUM_ITEMS, explain: true });
  const tookMs = lastMs;
  const user = await isrf.user(userId);
  await learn([...user.history.slice(-NUM_PAST), ...answer.items.map((one) => one.item_id)]);
  if (mine !== turn) return;
  const before = shown.userId === userId ? shown.ranks : null;
  const ranks = new Map(answer.items.map((one) => [one.item_id, one.rank]));
  showUser(user);
  showList(answer, before);
  shown = { userId, ranks, recommendationId: answer.meta.recommendation_id };
  const rests = RESTS_ON[answer.meta.source.replace("bundle:", "")] ?? answer.meta.source;
  const changed = before && told ? `${told}: ${changes(before, ranks)}. ` : "";
  at("said").textContent = `${changed}Answered ${rests} in ${tookMs.toFixed(0)} ms.`;
}

function changes(before, ranks) {
  const fresh = [...ranks.keys()].filter((id) => !before.has(id)).length;
  const moved = [...ranks].filter(([id, rank]) => before.has(id) && before.get(id) !== rank).length;
  return fresh || moved ? `${fresh} new, ${moved} moved` : "the list stays as it is";
}

function showUser(user) {
  at("who-name").textContent = user.user_id;
  at("avatar").textContent = [...user.user_id.replace(/[^\p{L}\p{N}]/gu, "")].slice(-2).join("") || "?";
  const { explicit, group, similar_users: similar } = user.interests;
  const count = user.history_total;
  at("who-about").textContent = user.known
    ? `${count} ${count === 1 ? "item" : "items"} in the history · ${similar} similar shoppers`
    : "Nobody knows this shopper yet. Look at something.";
  showWords(at("explicit"), explicit, "Nothing yet");
  showWords(at("group"), group, "Nobody yet");
  const past = user.history.slice(-NUM_PAST).reverse();
  at("history").replaceChildren(...past.map((id) => historyEntry(item(id))));
  at("history").parentElement.hidden = past.length === 0;
}

function showList(answer, before) {
  const list = at("list");
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  const focusedId = focused?.closest(".card")?.dataset.itemId;
  const open = new Set([...list.querySelectorAll(".why[open]")].map((why) => why.closest(".card").dataset.itemId));
  const cards = answer.items.map((one) => cardOf(one, item, before));
  for (const card of cards) card.querySelector(".why").open = before !== null && open.has(card.dataset.itemId);
  list.replaceChildren(...cards);
  list.removeAttribute("aria-busy");
  if (!focused) return;
  // The keyboard focus stays where it was, or moves to the start of the list.
  const again = cards.find((card) => card.dataset.itemId === focusedId);
  (again?.querySelector(`.${focused.className || "look"}`) ?? list).focus({ preventScroll: true });
}

async function act(itemId, kind) {
  const event = { user_id: shown.userId, item_id: itemId, event: kind, recommendation_id: shown.recommendationId };
  const [result] = (await isrf.interactions([event])).results;
  // A duplicate was accepted by an earlier try whose answer was lost.
  if (result.status === "refused") throw new IsrfError(result.reason, result.detail);
  const verb = kind === "purchase" ? "Bought" : "Looked at";
  await show(shown.userId, `${verb} “${item(itemId).title}” (${lastMs.toFixed(0)} ms)`);
}

function visit(userId) {
  asked = userId;
  location.hash = encodeURIComponent(userId);
  return show(userId);
}

// Five shoppers buy two things: one that a sixth bought, and one below the first ten of the sixth's list that no
// purchase before leads to. The sixth's list then has it further up, and says why.
async function letOthersBuy() {
  const others = madeUp("other");
  const sixth = `${others}-6`;
  const buy = (userId, itemId) => ({ user_id: userId, item_id: itemId, event: "purchase" });
  const list = async () => (await isrf.recommend(sixth, { n: NUM_FAR, explain: true })).items;
  const first = (await list()).at(-1).item_id;
  await isrf.interactions([buy(sixth, first)]);
  choose(sixth, "the sixth shopper");
  await visit(sixth);
  const listed = await list();
  const isNew = (one) => one.rank > NUM_FIRST && !one.reasons.some((reason) => BY_TAKERS.has(reason.channel));
  const before = listed.find(isNew) ?? listed.at(-1);
  const second = before.item_id;
  await isrf.interactions(OTHERS.flatMap((one) => [buy(`${others}-${one}`, first), buy(`${others}-${one}`, second)]));
  let now, why;
  for (let look = 0; look < LOOKS && !why; look++) {
    await new Promise((done) => setTimeout(done, COUNTED_MS));
    now = (await list()).find((one) => one.item_id === second);
    why = now?.reasons.find((reason) => reason.paths.some((path) => path.live_users));
  }
  await show(sixth, "Others bought");
  await learn([first, second]);
  const did = `Five shoppers bought “${item(first).title}” and “${item(second).title}”. The sixth bought the first alone.`;
  const moved = `The second was number ${before.rank} of the sixth's list and is number ${now?.rank ?? before.rank} now`;
  at("others-said").textContent = `${did} ${moved}${why ? `: ${why.text}` : "; that is not counted yet."}`;
  const card = [...at("list").children].find((one) => one.dataset.itemId === second);
  if (!card) return;
  card.querySelector(".why").open = true;
  card.scrollIntoView({ block: "nearest" });
}

const madeUp = (kind) => `${kind}-${Math.random().toString(36).slice(2, 8)}`;
const named = () => decodeURIComponent(location.hash.slice(1));

// Runs one action at a time, and shows its errors on the page.
let busy = Promise.resolve();
function then(work) {
  busy = busy.then(async () => {
    try {
      await work();
      at("trouble").hidden = true;
    } catch (error) {
      at("list").removeAttribute("aria-busy");
      at("trouble").textContent = `That did not work (${error.code ?? error.name}): ${error.message}`;
      at("trouble").hidden = false;
    }
  });
  return busy;
}

at("list").addEventListener("click", (click) => {
  const button = click.target.closest("button[data-event]");
  if (!button) return;
  const { itemId } = button.closest(".card").dataset;
  button.closest(".card").classList.add("chosen");
  then(() => act(itemId, button.dataset.event)).then(() => button.closest(".card")?.classList.remove("chosen"));
});
at("shopper").addEventListener("change", (event) => then(() => visit(event.target.value)));
at("visitor").addEventListener("click", () => {
  const name = madeUp("visitor");
  choose(name, "new visitor");
  then(() => visit(name));
});
at("others").addEventListener("click", () => {
  at("others").disabled = true;
  then(letOthersBuy).then(() => (at("others").disabled = false));
});

function choose(userId, about) {
  const select = at("shopper");
  if (![...select.options].some((one) => one.value === userId)) select.add(new Option([userId, about].filter(Boolean).join(" · "), userId));
  select.value = userId;
}

await then(async () => {
  const answer = await isrf.get("/demo/shoppers", "shoppers");
  for (const one of answer.shoppers) choose(one.user_id, `${one.num_items} items · ${one.likes.join(", ")}`);
  const wanted = named() || answer.shoppers[0]?.user_id || "visitor";
  choose(wanted, "");
  await visit(wanted);
});
// The browser's back and forward, or another shopper in the address.
window.addEventListener("hashchange", () =>
  then(async () => {
    if (!named() || named() === asked) return;
    choose(named(), "");
    await visit(named());
  }),
);
document.documentElement.dataset.ready = "yes";
