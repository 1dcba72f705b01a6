// Makes elements from data, and asks questions. Names and titles come from the shop: they become text, never markup.

const price = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
let made = 0;

export const at = (id) => document.getElementById(id);
export const newId = (kind) => `${kind}-${++made}`;

export function element(tag, className, ...content) {
  const one = document.createElement(tag);
  if (className) one.className = className;
  one.append(...content.filter((part) => part !== undefined && part !== null));
  return one;
}

export function button(text, does, { label, className } = {}) {
  const one = element("button", className, text);
  one.type = "button";
  if (label) one.setAttribute("aria-label", label);
  one.addEventListener("click", does);
  return one;
}

/** A control with its label; `path` is where the API's errors name it. */
export function field(text, control, path, className = "") {
  const label = element("label", "", text);
  control.id ||= newId("field");
  label.htmlFor = control.id;
  const one = element("div", `field ${className}`, label, control);
  one.dataset.path = path;
  return one;
}

export function input(type, value, more = {}) {
  const one = element("input");
  Object.assign(one, { type, autocomplete: "off", ...more, value: value ?? "" });
  return one;
}

export function select(options, value) {
  const one = element("select");
  for (const [of, text] of options) one.add(new Option(text, of));
  if (value !== undefined && !options.some(([of]) => of === value)) one.add(new Option(value, value));
  one.value = value ?? options[0]?.[0] ?? "";
  return one;
}

export const about = (card) =>
  [card.brand, card.price === null || card.price === undefined ? null : price.format(card.price)].filter(Boolean).join(" · ");

export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function show(trouble, error) {
  trouble.textContent = error ? sentence([error.message ?? String(error), error.fix].filter(Boolean).join(" ")) : "";
  trouble.hidden = !error;
}

/** Asks a question; answers with the value of the chosen button, "" where the dialog was closed. */
export function ask({ title, text, changes = [], choices }) {
  const dialog = at("dialog");
  at("dialog-title").textContent = title;
  at("dialog-text").textContent = text;
  at("dialog-changes").replaceChildren(...changes.map((change) => element("li", "", change)));
  at("dialog-acts").replaceChildren(
    ...choices.map(([value, label, className]) => {
      const one = element("button", className ?? "", label);
      one.value = value;
      return one;
    }),
  );
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue), { once: true }));
}
