// Labels by keys, undo, and what is new. Every page works without this file: it only saves clicks.
const token = document.body.dataset.token;
const strip = document.getElementById("strip");
let chain = Promise.resolve();

function undoable() { return JSON.parse(sessionStorage.getItem("undo") || "[]"); }

export function note(text, kind = "") {
  const item = document.createElement("span");
  item.className = kind;
  item.textContent = text;
  strip.prepend(item);
  while (strip.children.length > 8) strip.lastChild.remove();
  return item;
}

async function send(path, fields) {
  const body = new URLSearchParams(fields);
  body.append("token", token);
  const reply = await fetch(path, { method: "POST", body, headers: { Accept: "application/json" } });
  const found = await reply.json().catch(() => ({ error: `status ${reply.status}` }));
  if (!reply.ok) throw new Error(found.error || `status ${reply.status}`);
  return found;
}

export function showLabel({ id, label, people }) {
  for (const cell of document.querySelectorAll(`[data-label="${id}"]`)) {
    const word = document.createElement(label ? "b" : "span");
    word.className = `is ${(label || "none").toLowerCase()}`;
    word.textContent = label || "none";
    const names = document.createElement("small");
    names.textContent = people.map(([name, said]) => (said === label ? name : `${name} (${said})`)).join(", ");
    cell.replaceChildren(word, names);
  }
}

// Store a label. "Stored" is shown when the server has said so, never before. Acts are sent one after the other.
export function put(ids, label, extra = {}, failed = () => {}) {
  if (!token) { note("log in to label", "failed"); return false; }
  const item = note(`${ids.join(", ")} ${label} …`, "waits");
  chain = chain.then(async () => {
    try {
      const found = await send("/labels", [...ids.map((id) => ["row", id]), ["label", label], ...Object.entries(extra)]);
      if (found.given.length) sessionStorage.setItem("undo", JSON.stringify([...undoable(), { given: found.given, ids }].slice(-100)));
      found.candidates.forEach(showLabel);
      item.className = "";
      item.textContent = `${ids.join(", ")} ${label} stored`;
      found.told?.forEach((text) => note(text, "told"));
    } catch (error) {
      item.className = "failed";
      item.textContent = `${ids.join(", ")} ${label} NOT stored: ${error.message}`;
      failed();
    }
  });
  return true;
}

// Resolves when every act so far has been answered.
export function settled() { return chain; }

export function undo(shown = () => {}) {
  chain = chain.then(async () => {
    const acts = undoable(), last = acts.pop();
    if (!last) { note("nothing to undo in this window"); return; }
    try {
      const found = await send("/labels/undo", last.given.map((id) => ["given", id]));
      sessionStorage.setItem("undo", JSON.stringify(acts));
      found.candidates.forEach(showLabel);
      note(`${last.ids.join(", ")} undone`);
      shown(last.ids);
    } catch (error) {
      note(`${last.ids.join(", ")} NOT undone: ${error.message}`, "failed");
    }
  });
}

// Keys act only while no field has the focus. An action that returns false leaves the key to the browser.
export function listenTo(actions) {
  document.addEventListener("keydown", (event) => {
    const at = event.target, action = actions[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (at.matches?.("input:not([type=radio]):not([type=checkbox]), textarea, select, [contenteditable]")) {
      if (event.key === "Escape") at.blur();
    } else if (action && action(event) !== false) event.preventDefault();
  });
}

export function onKeys(actions) {
  const { Enter = () => false } = actions, presses = "a, button, summary, input";
  listenTo({ ...actions, Enter: (event) => (event.target.matches(presses) ? false : Enter()) });
  document.body.dataset.keys = "on";
}

const WORDS = { c: "candidate", r: "RFI", u: "unsure" };
const form = () => document.getElementById("judge");

export function judged() {
  const values = new FormData(form()), extra = {};
  for (const name of ["reason", "note", "blind"]) if (values.get(name)) extra[name] = values.get(name);
  return { id: values.get("row"), extra };
}

function reason(number) {
  const radio = form()?.querySelectorAll("[name=reason]")[number - 1];
  if (radio && !radio.disabled) radio.checked = !radio.checked;
}

export const common = {
  n: () => form()?.querySelector("[name=note]").focus(),
  "?": () => document.getElementById("help").showModal(),
  ...Object.fromEntries([1, 2, 3, 4, 5, 6].map((number) => [String(number), () => reason(number)])),
};

function tableKeys(rows) {
  let at = -1;
  const go = (step) => {
    rows[at]?.classList.remove("now");
    at = Math.max(0, Math.min(rows.length - 1, at + step));
    rows[at].classList.add("now");
    rows[at].scrollIntoView({ block: "nearest" });
  };
  const give = (word) => { if (at >= 0 && put([rows[at].dataset.row], word)) go(1); };
  onKeys({
    ...common, j: () => go(1), k: () => go(-1), s: () => go(1), z: () => undo(),
    Enter: () => { if (at >= 0) location.href = `/candidates/${rows[at].dataset.row}`; },
    ...Object.fromEntries(Object.entries(WORDS).map(([key, word]) => [key, () => give(word)])),
  });
}

function cardKeys() {
  const give = (word) => { const { id, extra } = judged(); put([id], word, extra); };
  onKeys({ ...common, z: () => undo(), ...Object.fromEntries(Object.entries(WORDS).map(([key, word]) => [key, () => give(word)])) });
}

function listen() {
  const news = document.getElementById("news"), since = document.body.dataset.since;
  if (!since || !news) return;
  const fresh = new Set();
  const source = new EventSource(`/events?since=${encodeURIComponent(since)}`);
  source.onmessage = (event) => {
    const { candidates = [], labels = [] } = JSON.parse(event.data);
    candidates.forEach((id) => fresh.add(id));
    if (fresh.size) { // rows under the cursor never move: the person loads them
      news.hidden = false;
      news.href = location.href;
      news.textContent = `${fresh.size} new`;
    }
    const shown = labels.filter((id) => document.querySelector(`[data-label="${id}"]`)).slice(0, 100);
    if (!shown.length) return;
    chain = chain.then(async () => { // among the acts of this window: no answer from before an act is shown after it
      const asked = new URLSearchParams(shown.map((id) => ["row", id]));
      const reply = await fetch(`/labels?${asked}`, { signal: AbortSignal.timeout(3_000) });
      if (reply.ok) (await reply.json()).candidates.forEach(showLabel);
    }).catch(() => {});
  };
  addEventListener("pagehide", () => source.close());
}

document.getElementById("choose-all")?.addEventListener("click", () => {
  const boxes = [...document.querySelectorAll("#alike [name=row]")], all = boxes.every((box) => box.checked);
  boxes.forEach((box) => { box.checked = !all; });
});
document.getElementById("alike")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const ids = [...document.querySelectorAll("#alike [name=row]:checked")].map((box) => box.value);
  if (ids.length) put(ids, event.submitter.value);
});
form()?.closest(".card") && !document.getElementById("queue") && form().addEventListener("submit", (event) => {
  event.preventDefault();
  const { id, extra } = judged();
  put([id], event.submitter.value, extra);
});

listen();
const queue = document.getElementById("queue");
const rows = [...document.querySelectorAll("main tr[data-row]")];
if (queue) import("/static/label.js").then(({ run }) => run(queue, WORDS));
else if (form()) cardKeys();
else if (rows.length) tableKeys(rows);
else onKeys(common);
