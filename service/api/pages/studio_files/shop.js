// What the page knows of the shop: titles of items, attributes, some shoppers. It asks the service for them.

const MOST_FOUND = 8;
const MOST_EXAMPLES = 100;

export class Shop {
  constructor(isrf) {
    Object.assign(this, { isrf, cards: new Map(), attributes: [], shoppers: [], popular: null });
  }

  /** Needs a key of the role admin, as everything that the page is for. */
  async open() {
    const [{ shoppers }, { attributes }] = await Promise.all([
      this.isrf.get("/studio/shoppers", "shoppers"),
      this.isrf.attributes({ limit: MOST_EXAMPLES }),
    ]);
    const { items } = await this.isrf.popular({ n: 1 });
    await this.learn(items.map((one) => one.item_id));
    // An attribute without a value makes no condition true.
    const filled = attributes.filter((one) => one.items > 0);
    Object.assign(this, { shoppers, attributes: filled, popular: items[0]?.item_id ?? null });
  }

  async learn(itemIds) {
    const missing = [...new Set(itemIds)].filter((id) => !this.cards.has(id));
    if (!missing.length) return;
    const { items } = await this.isrf.post("/studio/items", { item_ids: missing }, "items");
    for (const card of items) this.cards.set(card.item_id, card);
  }

  card = (itemId) => this.cards.get(itemId) ?? { item_id: itemId, title: itemId, brand: null, price: null };
  title = (itemId) => this.card(itemId).title;

  /** The most popular items whose title or id holds a text. */
  async search(text) {
    const like = `ILIKE '%${text.replaceAll("'", "''")}%'`;
    const { items } = await this.isrf.popular({ n: MOST_FOUND, filter: `title ${like} OR item_id ${like}` });
    await this.learn(items.map((one) => one.item_id));
    return items.map((one) => this.card(one.item_id));
  }
}
