// A list of suggestions below a text field, for mouse, keyboard and screen reader.

import { element, newId } from "./elements.js";

const WAIT_MS = 150;

/** Suggests while a person types. `suggest(text, caret)` gives options with `label` and `detail`, and with `from` where
 * the option depends on the caret, or a promise of them;
 * `pick(option)` takes the chosen one. Answers with the element that replaces the control. */
export function combobox(control, suggest, pick) {
  const list = element("ul", "options");
  Object.assign(list, { id: newId("options"), hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Suggestions");
  if (control.tagName === "INPUT") {
    control.setAttribute("role", "combobox");
    control.setAttribute("aria-expanded", false);
  }
  control.setAttribute("aria-autocomplete", "list");
  control.setAttribute("aria-controls", list.id);
  let options = [];
  let seen = ""; // the text and the place of the caret that the options are for
  let chosen = -1;
  let asked = 0;
  let timer;

  const mark = (place) => {
    chosen = place;
    for (const [index, row] of [...list.children].entries()) row.setAttribute("aria-selected", index === place);
    const row = list.children[place];
    row?.scrollIntoView({ block: "nearest" });
    if (row) control.setAttribute("aria-activedescendant", row.id);
    else control.removeAttribute("aria-activedescendant");
  };
  const expand = (found) => {
    options = found;
    list.replaceChildren(
      ...options.map((option, place) => {
        const row = element("li", "", element("span", "", option.label), element("small", "", option.detail ?? ""));
        row.id = `${list.id}-${place}`;
        row.setAttribute("role", "option");
        // A click would take the focus from the field first.
        row.addEventListener("mousedown", (press) => press.preventDefault());
        row.addEventListener("click", () => take(place));
        return row;
      }),
    );
    list.hidden = !options.length;
    if (options.length) list.scrollIntoView({ block: "nearest" });
    if (control.tagName === "INPUT") control.setAttribute("aria-expanded", !list.hidden);
    mark(-1);
  };
  const caret = () => control.selectionStart ?? control.value.length;
  const state = () => `${caret()} ${control.value}`;
  const take = async (place) => {
    let option = options[place];
    if (option.from !== undefined && state() !== seen) {
      // A letter came after the list: the option of the same name knows what it replaces now.
      const found = await suggest(control.value, caret()).catch(() => []);
      option = found.find((one) => one.label === option.label);
    }
    close();
    if (option) pick(option);
    else lookSoon();
  };
  const close = () => {
    asked += 1;
    clearTimeout(timer);
    expand([]);
  };
  const look = async () => {
    const mine = ++asked;
    const before = state();
    const found = await suggest(control.value, caret()).catch(() => []);
    if (mine === asked && document.activeElement === control) {
      seen = before;
      expand(found);
    }
  };
  const lookSoon = () => {
    clearTimeout(timer);
    timer = setTimeout(look, WAIT_MS);
  };

  control.addEventListener("input", lookSoon);
  control.addEventListener("focus", () => control.value === "" && lookSoon());
  control.addEventListener("blur", close);
  control.addEventListener("keydown", (press) => {
    if (press.key === "ArrowDown" && list.hidden) {
      press.preventDefault();
      look();
    } else if (list.hidden) {
      return;
    } else if (press.key === "ArrowDown" || press.key === "ArrowUp") {
      press.preventDefault();
      const step = press.key === "ArrowDown" ? 1 : -1;
      mark((chosen + step + options.length + (chosen < 0 && step < 0 ? 1 : 0)) % options.length);
    } else if ((press.key === "Enter" || press.key === "Tab") && chosen >= 0) {
      press.preventDefault();
      take(chosen);
    } else if (press.key === "Escape") {
      press.preventDefault();
      close();
    }
  });
  const whole = element("div", "combo");
  control.replaceWith(whole);
  whole.append(control, list);
  return whole;
}
