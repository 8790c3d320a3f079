// The queue of labels: the next candidates are loaded ahead, so that a key shows the next one at once.
import { common, judged, note, onKeys, put, settled, undo } from "/static/desk.js";

const AHEAD = 2;

export function run(queue, words) {
  const blind = queue.dataset.blind ? "&blind=1" : "";
  let ids = queue.dataset.ids ? queue.dataset.ids.split(" ") : [];
  let at = 0;
  const cards = new Map();
  const left = document.getElementById("left");
  let count = Number(left.textContent.replace(/,/g, ""));

  function load(id) {
    if (!id || cards.has(id)) return cards.get(id);
    const loaded = fetch(`/candidates/${id}?card=1${blind}`).then(async (reply) => {
      if (!reply.ok) throw new Error(`candidate ${id}: status ${reply.status}`);
      const card = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector(".card");
      card.querySelectorAll("img").forEach((image) => { new Image().src = image.src; });
      card.querySelectorAll("[data-stamp]").forEach((waterfall) => fetch(waterfall.dataset.stamp).catch(() => null));
      cards.set(id, card);
      return card;
    });
    cards.set(id, loaded);
    loaded.catch(() => cards.delete(id));
    return loaded;
  }

  const ahead = () => { for (let i = 1; i <= AHEAD; i += 1) load(ids[at + i]); };
  const ready = (card) => {
    card.querySelector("#judge").reset();
    queue.replaceChildren(card);
    queue.classList.remove("saving");
    const skip = document.getElementById("skip");
    if (skip) skip.href = `/label?${queue.dataset.query}&start=${ids[at + 1] || ""}`;
    queue.dispatchEvent(new CustomEvent("card", { bubbles: true, detail: { id: ids[at] } }));
    settled().then(ahead); // the label first: the server does one thing at a time
  };

  function show(index) {
    if (index < 0) return;
    if (index >= ids.length) { // what is left begins a new page
      location.href = `/label?${queue.dataset.query}`;
      return;
    }
    at = index;
    const card = load(ids[at]);
    if (card instanceof Promise) {
      card.then((loaded) => { if (ids[at] === loaded.dataset.card) ready(loaded); })
        .catch((error) => note(`candidate ${ids[index]} not loaded: ${error.message}`, "failed"));
    } else ready(card);
    queue.classList.toggle("saving", queue.querySelector(".card")?.dataset.card !== ids[at]);
  }

  function give(word) {
    const { id, extra } = judged();
    if (id !== ids[at]) return; // the next one is not on the screen yet: nobody has seen it
    const again = () => { ids.splice(at + 1, 0, id); left.textContent = String(count += 1); }; // it comes again
    if (put([id], word, extra, again)) {
      left.textContent = String(count = Math.max(0, count - 1));
      if (at + 1 < ids.length) show(at + 1);
      else settled().then(() => show(at + 1));
    }
  }

  if (ids.length) cards.set(ids[0], queue.querySelector(".card"));
  ahead();
  document.addEventListener("submit", (event) => {
    if (event.target.id !== "judge") return;
    event.preventDefault();
    give(event.submitter.value);
  });
  document.getElementById("skip")?.addEventListener("click", (event) => { event.preventDefault(); show(at + 1); });
  onKeys({
    ...common, j: () => show(at + 1), k: () => show(at - 1), s: () => show(at + 1),
    z: () => undo(([id]) => {
      left.textContent = String(count += 1);
      if (!ids.includes(id)) ids.splice(at, 0, id);
      show(ids.indexOf(id));
    }),
    ...Object.fromEntries(Object.entries(words).map(([key, word]) => [key, () => give(word)])),
  });
}
