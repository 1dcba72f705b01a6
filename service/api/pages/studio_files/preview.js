// The preview: the list as it is beside the list with the changes, what moved, and which rule moved it.

import { ruleText } from "./changes.js";
import { about, at, button, element } from "./elements.js";
import { itemSearch } from "./rules.js";

const WAIT_MS = 400;
const BESIDE_ITEMS = new Set(["similar", "together"]);
const MOST_SHOWN = 3; // items of a rule that are named

export class Preview {
  /** `draft()` gives the name and the placement; `failed(error)` and `made(answer)` take what came of it. */
  constructor(shop, { draft, failed, made }) {
    Object.assign(this, { shop, draft, failed, made, product: shop.popular, cart: [], asked: 0, timer: 0 });
    at("shoppers").replaceChildren(
      ...shop.shoppers.map((one) => new Option(`${one.num_items} items · ${one.likes.join(", ")}`, one.user_id)),
    );
    at("shopper").value = shop.shoppers[0]?.user_id ?? "";
    at("shopper").addEventListener("change", () => this.look());
    at("product").value = this.product === null ? "" : shop.title(this.product);
    itemSearch(at("product"), shop, (card) => {
      at("product").value = card.title;
      this.setProduct(card.item_id);
    });
    // Somebody who knows the id types it, and chooses nothing.
    at("product").addEventListener("change", () => {
      const text = at("product").value.trim();
      if (this.product === null || text !== shop.title(this.product)) this.setProduct(text || null);
    });
    itemSearch(at("cart-add"), shop, (card) => {
      at("cart-add").value = "";
      this.setCart([...this.cart.filter((one) => one !== card.item_id), card.item_id]);
    });
    at("lists").addEventListener("pointerover", (over) => this.highlight(over.target.closest("[data-item-id]")));
    at("lists").addEventListener("pointerleave", () => this.highlight(null));
    for (const side of document.querySelectorAll("input[name=side]")) {
      side.addEventListener("change", () => (at("lists").dataset.side = side.value));
    }
    at("lists").dataset.side = "after";
  }

  setProduct(itemId) {
    this.product = itemId;
    this.look();
  }

  setCart(itemIds) {
    this.cart = itemIds;
    at("cart").replaceChildren(
      ...itemIds.map((itemId, place) => {
        const title = this.shop.title(itemId);
        const without = () => {
          this.setCart(this.cart.filter((one) => one !== itemId));
          (at("cart").children[Math.min(place, this.cart.length - 1)]?.querySelector("button") ?? at("cart-add")).focus();
        };
        return element("li", "", title, button("✕", without, { label: `Take ${title} out of the cart`, className: "icon" }));
      }),
    );
    this.look();
  }

  /** Shows no further answer, and says why. */
  stop(told = "") {
    clearTimeout(this.timer);
    this.asked += 1;
    at("lists").removeAttribute("aria-busy");
    at("preview-said").textContent = told;
  }

  lookSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), WAIT_MS);
  }

  async look() {
    clearTimeout(this.timer);
    const mine = ++this.asked;
    const { name, placement, isDirty } = this.draft();
    this.showShopper();
    const startsFromItems = [placement.kind, ...placement.fallbacks].some((kind) => BESIDE_ITEMS.has(kind));
    at("product-field").hidden = at("cart-field").hidden = !startsFromItems;
    at("lists").setAttribute("aria-busy", "true");
    try {
      const answer = await this.shop.isrf.previewPlacement(placement, {
        name: name ?? undefined,
        user_id: at("shopper").value.trim() || undefined,
        item_id: startsFromItems ? this.product : undefined,
        cart: startsFromItems ? this.cart : undefined,
      });
      await this.shop.learn([...answer.before.items, ...answer.after.items].map((one) => one.item_id));
      if (mine !== this.asked) return;
      this.show(answer, placement, isDirty);
      this.made(answer);
    } catch (error) {
      if (mine !== this.asked) return;
      at("preview-said").textContent = "The list is as it was before the marked field.";
      this.failed(error);
    } finally {
      if (mine === this.asked) at("lists").removeAttribute("aria-busy");
    }
  }

  showShopper() {
    const known = this.shop.shoppers.find((one) => one.user_id === at("shopper").value.trim());
    at("shopper-about").textContent = known ? `${known.num_items} items, likes ${known.likes.join(", ")}` : "";
  }

  show(answer, placement, isDirty) {
    const moves = new Map(answer.moves.map((move) => [move.item_id, move]));
    const isStored = answer.before_is === "stored";
    const version = answer.before.meta.placement_version;
    const before = isStored ? `Now, ${version ? `version ${version}` : "from the file"}` : "Without its rules";
    const after = isDirty ? "With your changes" : "As it is now";
    at("before-title").textContent = at("side-before").textContent = before;
    at("after-title").textContent = at("side-after").textContent = after;
    at("before").replaceChildren(...answer.before.items.map((one) => this.row(one, moves.get(one.item_id), "before")));
    at("after").replaceChildren(...answer.after.items.map((one) => this.row(one, moves.get(one.item_id), "after")));
    showWarnings(at("before-warnings"), answer.before.warnings);
    showWarnings(at("after-warnings"), [...answer.warnings, ...answer.after.warnings]);
    at("preview-said").textContent = summary(answer.moves);
    at("effects").hidden = !answer.rules.length;
    at("effects-list").replaceChildren(...answer.rules.map((rule) => this.effect(rule, placement, answer.moves)));
  }

  row(item, move, side) {
    const card = this.shop.card(item.item_id);
    const row = element("li", "item", element("span", "place", item.rank), element("span", "title", card.title), element("span", "about quiet", about(card)));
    row.dataset.itemId = item.item_id;
    const tags = element("span", "tags");
    if (side === "before" && move?.after === null) tags.append(tag("leaves", "leaves"));
    if (side === "after" && move) tags.append(arrow(move));
    for (const one of side === "after" ? item.rules ?? [] : []) tags.append(ruleTag(one.rule, one.kind, one.moved));
    if (tags.children.length) row.append(tags);
    return row;
  }

  effect(rule, placement, moves) {
    const text = ruleText(placement.rules[rule.rule - 1], this.shop.title);
    const row = element("li", "", element("strong", "", text));
    const did = moves.flatMap((move) => move.rules.filter((one) => one.rule === rule.rule).map((one) => [move, one]));
    const named = did.slice(0, MOST_SHOWN).map(([move, one]) => `“${this.shop.title(move.item_id)}” ${wentTo(move, one.places)}`);
    const count = rule.items === 1 ? "1 item" : `${rule.items} items`;
    const more = did.length > MOST_SHOWN ? [`${did.length - MOST_SHOWN} more`] : [];
    const told = rule.items ? [`${count}${named.length ? ": " : ""}${[...named, ...more].join(", ")}`] : ["no effect on this page"];
    row.append(element("p", rule.items ? "quiet" : "quiet none", ...told));
    return row;
  }

  highlight(row) {
    for (const other of at("lists").querySelectorAll("[data-item-id]")) {
      other.classList.toggle("same", row !== null && other.dataset.itemId === row.dataset.itemId);
    }
  }
}

const tag = (text, className, label) => {
  const one = element("span", `tag ${className}`, text);
  if (label) one.setAttribute("aria-label", label);
  one.setAttribute("role", "note");
  return one;
};

function arrow({ before, after }) {
  if (before === null) return tag("new", "fresh", "new in the list");
  const up = before > after;
  return tag(`${up ? "▲" : "▼"} ${Math.abs(before - after)}`, up ? "up" : "down", `was at place ${before}`);
}

function ruleTag(rule, kind, places) {
  const how = places === null || places === undefined ? "" : places > 0 ? ` ▲${places}` : places < 0 ? ` ▼${-places}` : "";
  return tag(`rule ${rule}${how}`, "by-rule", `moved by rule ${rule}, ${kind.replace("_", " ")}${how ? `, ${Math.abs(places)} ${places > 0 ? "up" : "down"}` : ""}`);
}

function wentTo({ before, after }, places) {
  if (after === null) return "is kept out";
  if (before === null) return `comes to place ${after}`;
  return places ? `${places > 0 ? "▲" : "▼"} ${Math.abs(places)}` : `at place ${after}`;
}

function summary(moves) {
  const come = moves.filter((one) => one.before === null).length;
  const leave = moves.filter((one) => one.after === null).length;
  const move = moves.length - come - leave;
  const parts = [[come, "new"], [move, "moved"], [leave, "gone"]].filter(([count]) => count).map(([count, text]) => `${count} ${text}`);
  return parts.length ? `${parts.join(", ")}.` : "Both lists are the same.";
}

function showWarnings(list, warnings) {
  list.replaceChildren(...warnings.map((one) => element("li", "", one.message)));
}
