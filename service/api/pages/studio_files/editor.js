// The form of one placement: reads and writes a draft, and shows the service's errors beside what they are about.

import { KINDS, kindName, whole } from "./changes.js";
import { combobox } from "./combobox.js";
import { completed } from "./conditions.js";
import { at, button, element, sentence, show } from "./elements.js";
import { addButtons, ruleCard } from "./rules.js";

const DAY_S = 86_400;
const NUMBERS = { length: 10, min_price: null, max_price: null, cache_s: 0 }; // and what an empty field means
const TEXTS = ["filter", "category"];
const IN_MORE = ["category", "min_price", "max_price", "exclude_variants", "cache_s"];

export class Editor {
  /** `changed()` is called after each change of the draft. */
  constructor(shop, changed) {
    Object.assign(this, { shop, changed, draft: null });
    at("kind").replaceChildren(...Object.keys(KINDS).map((kind) => new Option(`${kindName(kind)} (${kind})`, kind)));
    at("kind").addEventListener("change", () => this.set("kind", at("kind").value));
    for (const [name, empty] of Object.entries(NUMBERS)) {
      at(name).addEventListener("input", () => this.set(name, at(name).value === "" ? empty : Number(at(name).value)));
      at(name).addEventListener("change", () => (at(name).value = this.draft[name] ?? ""));
    }
    for (const name of TEXTS) at(name).addEventListener("input", () => this.set(name, at(name).value.trim() || null));
    at("exclude_variants").addEventListener("change", () => this.set("exclude_variants", at("exclude_variants").checked));
    at("diversity").addEventListener("input", () => this.set("diversity", Number(at("diversity").value)));
    at("window_s").addEventListener("input", () => this.set("window_s", Number(at("window_s").value) * DAY_S));
    at("fallback-add").addEventListener("click", () => {
      this.set("fallbacks", [...this.draft.fallbacks, at("fallback-kind").value]);
      this.focusFallback(this.draft.fallbacks.length);
    });
    at("name").addEventListener("input", () => this.changed());
    completed(at("filter"), shop);
    combobox(at("category"), this.categories, ({ label }) => {
      at("category").value = label;
      this.set("category", label);
    });
    at("add-rule").replaceChildren(...addButtons((rule) => this.addRule(rule)));
    at("form").addEventListener("submit", (event) => event.preventDefault());
  }

  categories = async (text) => {
    const { examples = [] } = this.shop.attributes.find((one) => one.name === "categories") ?? {};
    const found = examples.filter((value) => value.toLowerCase().includes(text.toLowerCase()));
    return found.slice(0, 8).map((label) => ({ label }));
  };

  /** Shows a placement; `name` null: a new one. */
  open(name, placement) {
    this.draft = structuredClone(whole(placement));
    at("name-field").hidden = name !== null;
    at("name").value = "";
    for (const field of [...Object.keys(NUMBERS), ...TEXTS, "kind", "diversity"]) at(field).value = this.draft[field] ?? "";
    at("exclude_variants").checked = this.draft.exclude_variants;
    at("window_s").value = Math.round((100 * this.draft.window_s) / DAY_S) / 100;
    at("more").open = IN_MORE.some((field) => this.draft[field]);
    this.clearFaults();
    this.showParts();
    this.showRules();
  }

  set(name, value) {
    this.draft[name] = value;
    if (name === "kind") this.draft.fallbacks = this.draft.fallbacks.filter((kind) => kind !== value);
    this.showParts();
    this.changed();
  }

  showParts() {
    const { kind, fallbacks, diversity } = this.draft;
    at("kind-about").textContent = KINDS[kind]?.[1] ?? "";
    at("window-field").hidden = ![kind, ...fallbacks].includes("trending");
    at("diversity-shown").textContent = diversity ? diversity.toFixed(2) : "off: by score alone";
    at("fallbacks").replaceChildren(...fallbacks.map((one, place) => this.fallback(one, place)));
    const left = Object.keys(KINDS).filter((one) => one !== kind && !fallbacks.includes(one));
    at("fallback-kind").replaceChildren(...left.map((one) => new Option(kindName(one), one)));
    at("fallback-kind").hidden = at("fallback-add").hidden = !left.length;
  }

  // A button of the kind at a place, else what adds one, else the last kind's button.
  focusFallback(place) {
    const [row, adds] = [at("fallbacks").children[place], at("fallback-kind").hidden ? null : at("fallback-kind")];
    (row?.querySelector("button:not(:disabled)") ?? adds ?? at("fallbacks").lastElementChild.querySelector("button:not(:disabled)")).focus();
  }

  fallback(kind, place) {
    const others = this.draft.fallbacks.filter((one) => one !== kind);
    const change = (kinds, to) => {
      this.set("fallbacks", kinds);
      this.focusFallback(to);
    };
    const name = kindName(kind);
    const up = button("↑", () => change(others.toSpliced(place - 1, 0, kind), place - 1), { label: `Use ${name} earlier`, className: "icon" });
    up.disabled = place === 0;
    const remove = button("✕", () => change(others, Math.min(place, others.length - 1)), { label: `Do not use ${name}`, className: "icon" });
    return element("li", "", element("span", "", name), up, remove);
  }

  showRules() {
    const { rules } = this.draft;
    const act = { move: (from, to) => this.moveRule(from, to), remove: (place) => this.removeRule(place) };
    const more = { shop: this.shop, change: () => this.changed(), act };
    const cards = rules.map((rule, place) => ruleCard(rule, place, { ...more, isLast: place === rules.length - 1 }));
    at("rules").replaceChildren(...cards);
    at("no-rules").hidden = rules.length > 0;
  }

  addRule(rule) {
    this.draft.rules.push(rule);
    this.showRules();
    const card = at("rules").lastElementChild;
    (card.querySelector("textarea, input[type=text]") ?? card.querySelector("input, select")).focus();
    this.changed();
  }

  moveRule(from, to) {
    const [rule] = this.draft.rules.splice(from, 1);
    this.draft.rules.splice(to, 0, rule);
    this.showRules();
    at("rules").children[to].querySelector("button:not(:disabled)").focus();
    this.changed();
  }

  removeRule(place) {
    this.draft.rules.splice(place, 1);
    this.showRules();
    const next = at("rules").children[Math.min(place, this.draft.rules.length - 1)];
    (next?.querySelector("button:not(:disabled)") ?? at("add-rule").firstElementChild).focus();
    this.changed();
  }

  /** What the preview says of each rule: how many items it moved, put or held back. */
  showEffects(rules) {
    for (const effect of at("rules").querySelectorAll(".effect")) {
      const found = rules.find((one) => String(one.rule) === effect.dataset.rule);
      effect.textContent = found === undefined ? "" : found.items ? `${found.items} ${found.items === 1 ? "item" : "items"}` : "no effect here";
      effect.classList.toggle("none", found?.items === 0);
    }
  }

  clearFaults() {
    for (const fault of at("form").querySelectorAll(".fault")) fault.remove();
    for (const control of at("form").querySelectorAll("[aria-invalid]")) {
      control.removeAttribute("aria-invalid");
      control.removeAttribute("aria-describedby");
    }
    show(at("form-trouble"), null);
  }

  /** Shows an error of the service beside the fields and rules that it names; answers whether it names any. */
  showFaults(error) {
    this.clearFaults();
    const faults = error.errors.map((one) => [one.where.replace(/^body\.?/, "").replace(/^placement\.?/, ""), one.message]);
    // One refusal names all conditions that do not fit.
    const parts = error.code === "condition.invalid" ? error.message.split(/ (?=rule \d+: )/) : [];
    for (const part of parts) {
      const [, number, text] = part.match(/^(?:rule (\d+)|filter): (.*)$/s) ?? [null, undefined, part];
      const said = [text, parts.length === 1 ? error.fix : ""].filter(Boolean).join(" ");
      faults.push([number ? this.conditionOf(Number(number) - 1) : "filter", said]);
    }
    if (error.code === "request.invalid_placement") faults.push(["name", error.message]);
    const unplaced = faults.filter(([path, message]) => !this.showFault(path, message));
    if (unplaced.length) show(at("form-trouble"), unplaced.map(([path, text]) => (path ? `${path}: ${text}` : text)).join(" "));
    else if (!faults.length) show(at("form-trouble"), error);
    return faults.length > 0;
  }

  // Which of a rule's fields holds what the service looks up in the release.
  conditionOf(place) {
    const rule = this.draft.rules[place] ?? {};
    const [kind, fields] = Object.entries(rule)[0] ?? ["", {}];
    return ["where", "attribute", "item_id"].filter((name) => fields[name] !== undefined).map((name) => `rules.${place}.${kind}.${name}`)[0] ?? `rules.${place}`;
  }

  showFault(path, message) {
    const parts = path.split(".");
    let found = null;
    // The field itself, else the card around it.
    for (let length = parts.length; length && !found; length--) {
      found = at("form").querySelector(`[data-path="${CSS.escape(parts.slice(0, length).join("."))}"]`);
    }
    if (!found || found.id === "rules") return false;
    if (found.closest("details")) found.closest("details").open = true;
    const fault = element("p", "fault", sentence(message));
    fault.id = `fault-${found.dataset.path}`;
    found.append(fault);
    const control = found.querySelector("textarea, input, select");
    control?.setAttribute("aria-invalid", "true");
    control?.setAttribute("aria-describedby", fault.id);
    return true;
  }
}
