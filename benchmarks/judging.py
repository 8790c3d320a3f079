"""Let two people judge a simulated night with a real service, from files that land to labels in the store.

    python benchmarks/judging.py                       # 200 cadences in ten minutes
    python benchmarks/judging.py --cadences 24 --minutes 1 --pictures DIR

The cadences of eight band slices land one after the other. In each slice, emitters on the ground are at the same
frequencies all night: at times in all scans, at times in the ONs only, as in a side lobe. Twelve cadences have a
signal, and a share of the cadences gets a blind injection. Anna and Ben label in two browsers, by keys alone, as cards
appear: Anna with all that the page shows, Ben blind. They take for RFI what the memory of interference has seen before,
for a candidate what is bright in all ONs, and are unsure of the rest. At the end, what the pages, `status`, the store
and the simulation count must agree. The test packages and Debian's Chromium are needed.
"""

import argparse
import json
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from browser import Person, chromium
from desk import spread
from fake_slack import FakeSlack
from night import TARGETS
from running import Service, done
from sqlalchemy import func, select

from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, UNIX_EPOCH_MJD, gbt_header
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.store.injected import reviewers
from sentinel.store.labels import standing_labels
from sentinel.store.schema import candidate, heartbeat, injection, outbox

SLICES, SLICE_MHZ, NCHANS = 8, 0.5, 16_384
CADENCE_DAYS = 6.5 * SCAN_STEP_S / SECONDS_PER_DAY
PLACES = (0.14, 0.38, 0.62, 0.86)
"""Of the emitters on the ground, as fractions of a slice."""
BRIGHT, SIDE_LOBE = (60.0,) * 6, (24.0, 2.0, 19.0, 1.5, 27.0, 2.0)
STATES, SHARES = ((), BRIGHT, SIDE_LOBE), (0.2, 0.55, 0.25)
SIGNALS = 12
BLIND_SHARE = 0.08
BLIND_S = 10.0
"""A blind injection is searched after its cadence is recorded, seconds."""
SAME_MHZ = 5e-4
LEAST_SNR = 8.0
LIMIT_S = 3.0
"""For a candidate, with the look of the person."""
PAGES = {"night": "/", "table": "/candidates", "queue": "/label?label=not-mine", "blind": "/label?label=RFI&blind=1",
         "candidate": "/candidates/{best}", "cadence": "/cadences/{cadence}", "at": "/at/{mhz:.6f}",
         "guide": "/guide", "disagreed": "/candidates?label=disagreed"}  # fmt: skip
READ = """() => {
  const card = document.querySelector(".card"), rows = {};
  if (!card) return document.querySelector("#queue .empty") ? { id: null } : null;
  for (const row of card.querySelectorAll(".numbers tr")) rows[row.cells[0].innerText] = row.cells[1].innerText;
  return { id: card.dataset.card, ...rows };
}"""

GONE = "(id) => document.body?.dataset.keys && document.querySelector('.card')?.dataset.card !== id"


@dataclass(slots=True, kw_only=True)
class Night:
    """The cadences of a night: what lands, and which lines are in it."""

    folder: Path
    cadences: int
    rng: np.random.Generator
    signals: dict[int, float] = field(default_factory=dict)  # frequency in MHz of the signal of a cadence
    ground_mhz: list[float] = field(default_factory=list)
    landed: int = 0

    def land(self, minutes: float) -> None:
        """Land all cadences, evenly over the minutes."""
        with_signal = set(self.rng.choice(self.cadences, min(SIGNALS, self.cadences), replace=False).tolist())
        began = time.monotonic()
        midnight = int(UNIX_EPOCH_MJD + time.time() / SECONDS_PER_DAY) - 1
        for number in range(self.cadences):
            time.sleep(max(0.0, began + number * 60 * minutes / self.cadences - time.monotonic()))
            self._write(number, midnight + 0.002, with_signal=number in with_signal)
            self.landed += 1

    def _write(self, number: int, midnight: float, *, with_signal: bool) -> None:
        pointing, part = divmod(number, SLICES)
        header = gbt_header(NCHANS, fch1=1500.0 + part * SLICE_MHZ, source_name=TARGETS[pointing % len(TARGETS)])
        place = {"src_raj": 1.0 + pointing % len(TARGETS), "src_dej": 10.0}
        header = replace(header, tstart=midnight + pointing * CADENCE_DAYS, **place)
        emitters = []
        for fraction in PLACES:
            mhz = header.frequency(fraction * NCHANS) + self.rng.normal(0, 5e-5)
            self.ground_mhz.append(mhz)
            if snr := STATES[int(self.rng.choice(len(STATES), p=SHARES))]:
                emitters.append(Emitter(frequency_mhz=mhz, drift_hz_s=float(self.rng.normal(0, 0.02)), snr=snr))
        if with_signal:
            between = float(self.rng.uniform(0.085, 0.155)) + float(self.rng.choice(PLACES[:-1]))
            mhz = header.frequency(NCHANS * between)
            drift = float(self.rng.uniform(0.1, 0.4) * self.rng.choice([-1, 1]))
            emitters.append(Emitter(frequency_mhz=mhz, drift_hz_s=drift, width_hz=4.0, snr=(30.0, 0.0) * 3))
            self.signals[number] = mhz
        hidden = self.folder / ".part"
        hidden.mkdir(parents=True, exist_ok=True)
        sky = Sky(header=header, emitters=tuple(emitters), off_names=("OFF_1", "OFF_2", "OFF_3"))
        for path in write_cadence(hidden, sky, int(self.rng.integers(2**31)), suffix=".fil"):
            path.rename(self.folder / f"{number:04d}-{path.name}")

    def is_signal(self, row: Any) -> bool:
        """Return whether a candidate is one of the signals."""
        return any(abs(row.frequency_mhz - mhz) < SAME_MHZ for mhz in self.signals.values())


@dataclass(slots=True, kw_only=True)
class Reviewer:
    """A person who labels what the queue shows, by keys alone."""

    window: Person
    queue: str
    look_s: float
    took: list[float] = field(default_factory=list)

    def label_one(self) -> bool:
        """Label the candidate on the screen, or look for new ones; return whether there was one."""
        began = time.perf_counter()
        shown = self.window.page.wait_for_function(READ).json_value()
        if shown["id"] is None:
            self.window.open(self.queue)
            return False
        time.sleep(self.look_s)
        key = decide(shown)
        with self.window.page.expect_response(lambda reply: reply.request.method == "POST") as reply:
            self.window.press(*("2r" if key == "r" else key))
        assert reply.value.ok, reply.value.status
        self.window.page.wait_for_function(GONE, arg=shown["id"])
        self.took.append(time.perf_counter() - began)
        return True


def decide(shown: dict[str, str]) -> str:
    """Return the key for what a card shows."""
    on = [float(value) for value in re.findall(r"[\d.]+", shown["SNR"].partition("together")[0])][::2]
    if re.search(r"lines here|seen", shown["remarks"]):
        return "r"
    return "c" if min(on) >= LEAST_SNR else "u"


def judge(night: Night, service: Service, people: list[Reviewer]) -> None:
    """Let the people label in turn until every cadence is recorded and nothing is left."""
    while True:
        complete = len(done(service)) == night.cadences
        labeled = [person.label_one() for person in people]
        if not any(labeled):
            if complete:
                return
            time.sleep(1)


def check(night: Night, service: Service, people: list[Reviewer], slack: FakeSlack) -> None:
    """Compare the counts of the pages, of `status` and of the store with what landed; print what was found."""
    rows = service.rows(select(candidate.c.id, candidate.c.frequency_mhz, candidate.c.label_in_force))
    given = service.rows(standing_labels())
    by_person = Counter(row.by for row in given)
    ledger = json.loads(service.run("status", "--json", check=False).stdout)["ledger"]
    window = people[0].window
    window.open("/")
    shown = window.page.evaluate(
        """() => ({ cadences: +document.querySelector(".panels .panel:nth-child(4) td").innerText.replace(",", ""),
          candidates: +document.querySelector(".bar a[href^='/candidates?night']").innerText.replace(/\\D/g, ""),
          labels: Object.fromEntries([...document.querySelectorAll(".panels .panel:first-child .facet a")]
            .filter((a) => a.querySelector(".count")).map((a) =>
              [a.querySelector(".is").innerText, +a.querySelector(".count").innerText])) })"""
    )
    window.open("/candidates")
    table = int(re.sub(r"\D", "", window.page.locator(".wide h1").inner_text()))
    counts = Counter(row.label_in_force or "none" for row in rows)
    found = {mhz for mhz in night.signals.values() for row in rows if abs(row.frequency_mhz - mhz) < SAME_MHZ}
    labeled = Counter((night.is_signal(row), row.label_in_force) for row in rows)
    messages = service.rows(select(outbox.c.state, func.count()).group_by(outbox.c.state))
    print(f"landed {night.landed} cadences with {len(night.signals)} signals, of which {len(found)} are candidates")
    print(f"ledger {ledger}; messages {dict(tuple(row) for row in messages)}, {len(slack.messages)} posted")
    print(f"candidates: {len(rows)} in the store, {table} in the table, {shown['candidates']} in the night")
    print(f"labels in force: {dict(counts)}; in the night: {shown['labels']}")
    for signal in (True, False):
        words = {word: n for (is_signal, word), n in labeled.items() if is_signal == signal}
        print(f"labels in force of {'signals' if signal else 'interference'}: {words}")
    injected = service.rows(select(injection.c.recovered).where(injection.c.kind == "blind"))
    print(f"{len(injected)} blind injections, {sum(row.recovered for row in injected)} found by the search")
    with service.store.read() as connection:
        measured = {each["name"]: each for each in reviewers(connection)}
    for person in people:
        name = person.window.name
        p50, p95 = spread(person.took)
        times = f"p50 {p50 / 1e3:.2f} s, p95 {p95 / 1e3:.2f} s, most {max(person.took):.2f} s"
        over = sum(took > LIMIT_S for took in person.took)
        print(f"{name}: {by_person[name]} labels; a candidate took {times}; {over} over {LIMIT_S:.0f} s")
        if name in measured:
            print(f"  of injected signals {dict(measured[name]['injected'])}")
            print(f"  of interference that the memory knows {dict(measured[name]['interference'])}")
    assert night.landed == night.cadences == ledger["seen"] == ledger["done"] == shown["cadences"]
    assert len(rows) == table == shown["candidates"]
    assert all(by_person[person.window.name] == len(rows) for person in people)
    assert shown["labels"] == {word: counts[word] for word in ("none", "candidate", "RFI", "unsure")}
    assert {name: each["injected"].total() for name, each in measured.items()} == dict.fromkeys(
        measured, sum(row.recovered for row in injected)
    )
    print("all counts agree")


def take_pictures(service: Service, window: Person, folder: Path) -> None:
    """Take a picture of every page, light and dark, wide and narrow."""
    best = service.rows(select(candidate).order_by(candidate.c.probability.desc(), candidate.c.id))[0]
    values = {"best": best.id, "cadence": best.cadence_id, "mhz": best.frequency_mhz}
    for scheme in ("light", "dark"):
        for width in (1280, 420):
            window.page.emulate_media(color_scheme=scheme)
            window.page.set_viewport_size({"width": width, "height": 800})
            for name, path in PAGES.items():
                window.open(path.format(**values))
                window.page.wait_for_timeout(1200)
                window.page.screenshot(path=folder / f"{name}-{scheme}-{width}.png", full_page=width > 1000)


def port_of(service: Service) -> int:
    """Wait for the web program; return its port."""
    beats = select(heartbeat.c.facts).where(heartbeat.c.name.like("web%"))
    found = service.until(lambda: [row.facts["web"] for row in service.rows(beats) if "http" in row.facts["web"]])
    return int(found[0].rpartition(":")[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cadences", type=int, default=200, help="that land (default 200)")
    parser.add_argument("--minutes", type=float, default=10.0, help="in which they land (default 10)")
    parser.add_argument("--look", type=float, default=0.3, metavar="S", help="that a person looks (default 0.3)")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="take pictures of all pages into this folder")
    options = parser.parse_args()
    slack = FakeSlack()
    with TemporaryDirectory() as folder, chromium() as browser:
        injections = {"canary_s": 0, "blind_share": BLIND_SHARE}
        service = Service(Path(folder) / "service", slack, injections=injections)
        night = Night(
            folder=Path(service.config.watch.roots[0]),
            cadences=options.cadences,
            rng=np.random.default_rng(options.seed),
        )
        night.folder.mkdir(parents=True, exist_ok=True)
        try:
            service.run("up")
            done(service)
            port, began = port_of(service), time.monotonic()
            telescope = threading.Thread(target=night.land, args=(options.minutes,), daemon=True)
            telescope.start()
            queues = {"anna": "/label?label=not-mine", "ben": "/label?label=not-mine&blind=1"}
            people = [
                Reviewer(window=Person(browser, service.store, port, name), queue=queue, look_s=options.look)
                for name, queue in queues.items()
            ]
            for person in people:
                person.window.open(person.queue)
            judge(night, service, people)
            telescope.join()
            print(f"{(time.monotonic() - began) / 60:.1f} minutes from the first file to the last label")
            time.sleep(BLIND_S)
            judge(night, service, people)
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
                take_pictures(service, people[0].window, options.pictures)
            check(night, service, people, slack)
            for person in people:
                person.window.close()
        finally:
            service.run("down", check=False)
            slack.close()


if __name__ == "__main__":
    main()
