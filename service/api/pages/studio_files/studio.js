// The studio: asks for the key, lists placements, and saves, removes and compares versions of one.

import { changes, kindName, same, whole } from "./changes.js";
import { Editor } from "./editor.js";
import { ask, at, element, show } from "./elements.js";
import { IsrfClient } from "./client/index.js";
import { Preview } from "./preview.js";
import { isComplete } from "./rules.js";
import { Shop } from "./shop.js";

const KEY = "isrf-studio-key";
const LOOK_MS = 15_000; // between two looks for changes of other people
const PATIENCE = { timeoutMs: 20_000, deadlineMs: 60_000 }; // a person waits longer than a shop's page
const FRESH = { kind: "for-user" };
const REFUSED = new Set([401, 403]);

let shop;
let editor;
let preview;
let listed = []; // the placements, as last read
let base = null; // the stored version that the draft starts from; its `name` is null for a new placement
let newer = null; // a version that somebody else stored since
let lookFailed = false; // whether the trouble that is shown is that of a look

const isNew = () => base.name === null;
const isDirty = () => base !== null && (isNew() || !same(whole(base.placement), editor.draft));
// A new placement without a name and a change is nothing yet.
const wouldLose = () => isDirty() && (!isNew() || draftName() !== "" || !same(editor.draft, whole(FRESH)));
const draftName = () => base.name ?? at("name").value.trim();

async function open(apiKey) {
  const opened = new Shop(new IsrfClient("", { ...PATIENCE, apiKey: apiKey ?? undefined }));
  await opened.open();
  if (shop) {
    // Another key: what is being edited stays.
    Object.assign(shop, opened);
    await look();
    return showStudio(apiKey);
  }
  shop = opened;
  editor = new Editor(shop, changed);
  preview = new Preview(shop, {
    draft: () => {
      // What has not been changed is shown beside the same list without its rules.
      const isCompared = isDirty() || !editor.draft.rules.length;
      return { name: isCompared ? base.name : null, placement: editor.draft, isDirty: isDirty() };
    },
    made: ({ rules }) => {
      editor.clearFaults();
      editor.showEffects(rules);
      show(at("trouble"), null);
    },
    failed: (error) => {
      if (!editor.showFaults(error)) failed(error);
    },
  });
  await look();
  const named = location.hash.slice(1);
  const first = listed.find((one) => encodeURIComponent(one.name) === named) ?? listed[0];
  if (first) choose(first);
  return showStudio(apiKey);
}

function showStudio(apiKey) {
  at("sign-in").hidden = true;
  at("studio").hidden = false;
  at("change-key").hidden = apiKey === null;
}

/** Reads the placements; tells of a version that somebody else stored meanwhile. */
async function look() {
  const { placements, warnings } = await shop.isrf.placements();
  listed = placements;
  showList();
  if (warnings.length || lookFailed) show(at("trouble"), warnings[0] ?? null);
  lookFailed = warnings.length > 0;
  if (base === null || isNew()) return;
  const now = listed.find((one) => one.name === base.name) ?? { name: base.name, version: 0, placement: null };
  if (now.version === base.version) return;
  if (now.placement !== null && !isDirty()) choose(now, `Somebody changed it: this is version ${now.version}.`);
  else tellOf(now);
}

function tellOf(now) {
  newer = now;
  const what = now.placement === null ? "removed" : "changed";
  const lines = now.placement === null ? [] : changes(base.placement, now.placement, shop.title);
  at("notice-text").textContent = `Somebody ${what} ${base.name} while you edit it. ${lines.join("; ")}`;
  at("notice").hidden = false;
}

function showList() {
  const focused = at("placements").contains(document.activeElement) ? document.activeElement.hash : null;
  at("placements").replaceChildren(
    ...listed.map((one) => {
      const link = element("a", "", element("strong", "", one.name), element("span", "quiet", kindName(one.placement.kind)));
      link.href = `#${encodeURIComponent(one.name)}`;
      link.append(element("span", "version", one.version ? `v${one.version}` : "file"));
      link.addEventListener("click", (click) => {
        click.preventDefault();
        safely(() => leave(() => choose(one)));
      });
      if (base?.name === one.name) link.setAttribute("aria-current", "page");
      return element("li", "", link);
    }),
  );
  at("no-placements").hidden = listed.length > 0;
  // The link that had the focus has been replaced.
  if (focused !== null) ([...at("placements").querySelectorAll("a")].find((one) => one.hash === focused) ?? at("new")).focus();
}

/** Goes on where nothing is lost by it, or where the person says so. */
async function leave(go) {
  if (wouldLose()) {
    const title = `Leave ${draftName() || "the new placement"} without saving?`;
    const choices = [["", "Stay"], ["leave", "Leave", "danger"]];
    const lines = changes(isNew() ? null : base.placement, editor.draft, shop.title);
    const answer = await ask({ title, text: "These changes are lost:", changes: lines, choices });
    if (answer !== "leave") return;
  }
  go();
}

/** Shows a stored placement, or a new one (`name` null). */
function choose(placement, told = "") {
  base = placement;
  newer = null;
  at("notice").hidden = true;
  for (const id of ["editor", "preview"]) at(id).hidden = false;
  at("welcome").hidden = true;
  editor.open(base.name, base.placement);
  at("editor-title").textContent = base.name ?? "New placement";
  const version = base.version ? `version ${base.version}` : "from the service's file, as version 0";
  at("editor-about").textContent = isNew() ? "" : version;
  at("delete").hidden = isNew() || base.version === 0;
  if (base.name !== null) history.replaceState(null, "", `#${encodeURIComponent(base.name)}`);
  showList();
  // On a phone the names stand in a row.
  at("placements").scrollLeft = (at("placements").querySelector("[aria-current]")?.offsetLeft ?? 0) - at("placements").offsetLeft;
  showChanged(told);
  safely(async () => {
    const pinned = editor.draft.rules.map((rule) => rule.pin?.item_id).filter(Boolean);
    await shop.learn(pinned);
    if (pinned.length) editor.showRules();
    await preview.look();
  });
}

function changed() {
  showChanged();
  if (editor.draft.rules.every(isComplete)) preview.lookSoon();
  else preview.stop("Complete the rule, and you see here what it does.");
}

function showChanged(told = "") {
  const count = isNew() ? 0 : changes(base.placement, editor.draft, shop.title).length;
  at("changed").textContent = told || (isNew() ? "not saved yet" : count ? `${count} unsaved ${count === 1 ? "change" : "changes"}` : "no changes");
  at("save").disabled = !isDirty();
  at("discard").hidden = !isDirty();
}

async function save() {
  const name = draftName();
  if (!name) {
    editor.clearFaults();
    editor.showFault("name", "Give it a name.");
    at("name").focus();
    return;
  }
  const lines = changes(isNew() ? null : base.placement, editor.draft, shop.title);
  const text = isNew()
    ? `Your pages get it as ${name}. Its list: ${kindName(editor.draft.kind)}.`
    : "Every page that shows it changes within a second:";
  const choices = [["", "Cancel"], ["save", "Save", "primary"]];
  if ((await ask({ title: `Save ${name}?`, text, changes: lines, choices })) !== "save") return;
  try {
    const stored = await shop.isrf.putPlacement(name, editor.draft, { expected_version: base.version });
    done(stored, `Saved as version ${stored.version}.`);
    await look();
  } catch (error) {
    if (error.code === "placement.changed") await compare(name);
    else if (REFUSED.has(error.status) || !editor.showFaults(error)) failed(error);
    else at("form").querySelector("[aria-invalid]")?.focus();
  }
}

// Somebody else stored another version: nothing is overwritten before the person has seen it.
async function compare(name) {
  await look();
  const now = listed.find((one) => one.name === name) ?? null;
  // The answer of an earlier try may have been lost on the way.
  if (now !== null && same(whole(now.placement), editor.draft)) return done(now, `Saved as version ${now.version}.`);
  if (isNew()) {
    editor.clearFaults();
    editor.showFault("name", `There is a placement ${name} already. Choose another name, or edit that one.`);
    return at("name").focus();
  }
  tellOf(now ?? { name, version: 0, placement: null });
  at("notice").scrollIntoView({ block: "nearest" });
  return at("take-theirs").focus();
}

function done(stored, told) {
  choose({ name: stored.name, version: stored.version, placement: stored.placement }, told);
}

function takeTheirs() {
  return newer.placement === null ? close() : choose(newer, `This is version ${newer.version}.`);
}

/** Shows no placement. */
function close() {
  base = null;
  preview.stop();
  for (const id of ["editor", "preview", "notice"]) at(id).hidden = true;
  at("welcome").hidden = false;
  showList();
  at("new").focus();
}

function keepMine() {
  base = { ...newer, placement: newer.placement ?? FRESH };
  at("notice").hidden = true;
  at("editor-about").textContent = base.version ? `version ${base.version}, with your changes` : "removed, and put again when you save";
  showChanged();
  at("save").focus();
  return preview.look();
}

async function remove() {
  const title = `Delete ${base.name}?`;
  const text = "Pages that ask for it get an error, unless the service's file has a placement of this name: then that one counts again.";
  if ((await ask({ title, text, choices: [["", "Cancel"], ["delete", "Delete", "danger"]] })) !== "delete") return;
  const { name, version } = base;
  try {
    await shop.isrf.deletePlacement(name, { expected_version: version });
  } catch (error) {
    if (error.code === "placement.changed") return compare(name);
    throw error;
  }
  close();
  await look();
  const again = listed.find((one) => one.name === name);
  return again && choose(again, "Deleted: the service's file counts again.");
}

function failed(error) {
  if (REFUSED.has(error.status)) return signIn(error);
  show(at("trouble"), error);
  return at("trouble").scrollIntoView({ block: "nearest" });
}

function signIn(error) {
  sessionStorage.removeItem(KEY);
  at("studio").hidden = true;
  at("change-key").hidden = true;
  at("sign-in").hidden = false;
  at("key").value = "";
  at("key").focus();
  // Whoever has sent no key yet has done nothing wrong.
  show(at("key-trouble"), error?.code === "key.missing" ? null : error);
}

// Runs one action at a time, and shows its errors on the page.
let busy = Promise.resolve();
function safely(work) {
  busy = busy.then(work).catch((error) => failed(error));
  return busy;
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const key = at("key").value.trim();
  safely(async () => {
    try {
      await open(key);
      sessionStorage.setItem(KEY, key);
    } catch (error) {
      show(at("key-trouble"), error);
      at("key").focus();
    }
  });
});
at("change-key").addEventListener("click", () => safely(() => leave(() => signIn(null))));
at("new").addEventListener("click", () => safely(() => leave(() => {
  choose({ name: null, version: 0, placement: FRESH });
  at("name").focus();
})));
at("save").addEventListener("click", () => safely(save));
at("discard").addEventListener("click", () => safely(() => leave(() => (isNew() ? close() : choose(base)))));
at("delete").addEventListener("click", () => safely(remove));
at("take-theirs").addEventListener("click", () => safely(takeTheirs));
at("keep-mine").addEventListener("click", () => safely(keepMine));
// The address names the placement: these links leave it as it is.
for (const link of document.querySelectorAll("[data-to]")) {
  link.addEventListener("click", (click) => {
    click.preventDefault();
    const to = [link.dataset.to, "welcome", "sign-in"].map(at).find((one) => one.checkVisibility());
    to?.focus();
    to?.scrollIntoView();
  });
}
window.addEventListener("beforeunload", (event) => wouldLose() && event.preventDefault());
// Nobody asked for these looks: what fails is told where it stands, and nothing scrolls.
function lookAround() {
  if (!shop || at("studio").hidden || document.hidden || at("dialog").open) return;
  safely(async () => {
    try {
      await look();
    } catch (error) {
      if (REFUSED.has(error.status)) throw error;
      lookFailed = true;
      show(at("trouble"), error);
    }
  });
}
setInterval(lookAround, LOOK_MS);
window.addEventListener("focus", lookAround);

await safely(async () => {
  try {
    await open(sessionStorage.getItem(KEY));
  } catch (error) {
    if (!REFUSED.has(error.status)) throw error;
    signIn(error);
  }
});
document.documentElement.dataset.ready = "yes";
