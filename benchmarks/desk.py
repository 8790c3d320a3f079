"""Measure the pages of a store with 50,000 candidates, or take pictures of those of a simulated night.

    python benchmarks/desk.py                       # the table of targets, p50 and p95
    python benchmarks/desk.py --pictures docs       # pictures for the documents

The requests are sent one after the other over HTTP to a web program in a process of its own. The test packages and
Debian's Chromium are needed.
"""

import argparse
import http.client
import io
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import yaml
from night import KINDS, NCHANS, draw_kinds, fill, label_some, review
from night import TARGETS as TARGETS_OF_NIGHT
from PIL import Image
from playwright.sync_api import sync_playwright
from sqlalchemy import delete, insert, select, update

from aetherscan.header import UNIX_EPOCH_MJD, gbt_header
from aetherscan.io import open_cadence
from sentinel.config import ROOT, load_config
from sentinel.store.filters import parse_filter
from sentinel.store.queue import open_store
from sentinel.store.schema import artefact, candidate, label
from sentinel.web.alike import Latents
from sentinel.web.night import day_of
from sentinel.web.query import facets, one_candidate
from sentinel.web.session import new_link
from sentinel.workers.stamps import write_stamp

CHROMIUM = "/usr/bin/chromium"
A_NIGHT = 145
"""Cadences of a simulated night."""
TARGETS = {
    "table page": "p50 < 100, p95 < 200 ms",
    "table page, filtered and sorted": "p50 < 100, p95 < 200 ms",
    "facets": "< 20 ms",
    "night map": "< 20 ms",
    "look-alikes": "< 30 ms",
    "candidate page": "< 400 ms",
    "DOM ready": "< 300 ms",
    "key to next candidate": "< 16 ms",
    "key to stored": "< 100 ms",
}


@contextmanager
def program(place: Path):
    """Run a web program with its state in a folder; give its port and process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {"state_dir": "var", "web": {"port": port}, "injections": {"canary_s": 0}}
    (place / "config.yaml").write_text(yaml.safe_dump(settings))
    (place / "var").mkdir(exist_ok=True)
    environment = {**os.environ, "SENTINEL_CONFIG": str(place / "config.yaml"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "sentinel.programs.program", "web"]
    process = subprocess.Popen(command, env=environment)
    try:
        while True:
            try:
                fetch(port, "/healthz")
                break
            except ConnectionError:
                time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def fetch(port: int, path: str) -> tuple[float, bytes]:
    """Return the seconds that a request takes, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    connection.request("GET", path)
    reply = connection.getresponse()
    body = reply.read()
    took = time.perf_counter() - began
    connection.close()
    assert reply.status == 200, (path, reply.status, body[:200])
    return took, body


def spread(seconds: list[float]) -> tuple[float, float]:
    """Return p50 and p95 in milliseconds."""
    p50, p95 = np.percentile(np.array(seconds) * 1e3, (50, 95))
    return float(p50), float(p95)


def measure(place: Path, count: int) -> None:
    """Print the table of targets for a store of so many candidates."""
    rng = np.random.default_rng(3)
    filled = (place / "var" / "sentinel.db").exists()
    config = load_config(place / "config.yaml") if filled else store_of(place, cadences=count // 25, each=25)
    store = open_store(config.store_url)
    reached, sizes = {}, {}
    with program(place) as (port, process):
        fetch(port, "/candidates/1")  # reads the latents
        pages = {
            "table page": lambda: f"/candidates?p=0.{rng.integers(10, 40)}..",
            "table page, filtered and sorted": lambda: (
                f"/candidates?label=none&mhz=..{rng.integers(1500, 1790)}&sort=-snr"
            ),
            "night map": lambda: f"/night.json?night={night_of(store, rng)}",
            "candidate page": lambda: f"/candidates/{rng.integers(1, count)}",
        }  # fmt: skip
        for name, path in pages.items():
            found = [fetch(port, path()) for _ in range(20)]
            reached[name] = spread([took for took, _ in found])
            sizes[name] = max(len(body) for _, body in found)
        sizes["candidate page"] += max(len(fetch(port, f"/candidates/{n}/picture.png")[1]) for n in (1, 9, 17))
        reached |= in_browser(store, port)
        memory_mb = process.memory_info().rss / 1e6
    reached |= in_process(store, rng, count)
    print(f"{count:,} candidates, SQLite, {os.cpu_count()} cores\n")
    print(f"| what | target | p50, ms | p95, ms |\n|---|---|{'---:|' * 2}")
    for name, target in TARGETS.items():
        if name in reached:
            print(f"| {name} | {target} | {reached[name][0]:.1f} | {reached[name][1]:.1f} |")
    print(f"| memory of `web` | < 150 MB | {memory_mb:.0f} MB | |")
    print(f"| candidate page with its picture | < 450 kB | {sizes['candidate page'] / 1e3:.0f} kB | |")
    store.engine.dispose()


def night_of(store, rng: np.random.Generator) -> str:
    """Return the date of a random candidate."""
    with store.read() as rows:
        return day_of(rows.scalar(select(candidate.c.tstart_mjd).where(candidate.c.id == int(rng.integers(1, 1000)))))


def in_process(store, rng: np.random.Generator, count: int) -> dict[str, tuple[float, float]]:
    """Time facets and look-alikes without HTTP."""
    latents, took = Latents(), {"facets": [], "look-alikes": []}
    with store.read() as rows:
        latents.nearest(rows, one_candidate(rows, 1), 12)
        for _ in range(20):
            asked = parse_filter([("p", f"0.{rng.integers(10, 40)}..")])
            began = time.perf_counter()
            facets(rows, asked, "")
            took["facets"].append(time.perf_counter() - began)
            row = one_candidate(rows, int(rng.integers(1, count)))
            began = time.perf_counter()
            latents.nearest(rows, row, 12)
            took["look-alikes"].append(time.perf_counter() - began)
    return {name: spread(seconds) for name, seconds in took.items()}


@contextmanager
def window(store, port: int, **options):
    """Open a browser window in which `anna` has logged in."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=["--no-sandbox"])
        page = browser.new_context(**options).new_page()
        page.goto(f"http://127.0.0.1:{port}/login?code={new_link(store, 'anna')}")
        page.click("main button")
        page.wait_for_selector("text=Log out")
        yield page
        browser.close()


def in_browser(store, port: int) -> dict[str, tuple[float, float]]:
    """Time what a person waits for."""
    ready, shown, stored = [], [], []
    with window(store, port) as page:
        for number in range(10):
            page.goto(f"http://127.0.0.1:{port}/candidates?p=0.{20 + number}..")
            timing = "() => performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"
            ready.append(page.evaluate(timing) / 1e3)
        page.goto(f"http://127.0.0.1:{port}/label")
        page.wait_for_selector("body[data-keys]")
        for _ in range(20):
            page.wait_for_timeout(300)  # a person looks longer; the next ones are loaded meanwhile
            times = page.evaluate(KEY)
            shown.append(times[0] / 1e3)
            stored.append(times[1] / 1e3)
    return {"DOM ready": spread(ready), "key to next candidate": spread(shown), "key to stored": spread(stored)}


KEY = """async () => {
  const queue = document.getElementById("queue"), strip = document.getElementById("strip");
  const card = queue.querySelector(".card");
  const began = performance.now();
  const next = new Promise((seen) => new MutationObserver(() => {
    if (queue.querySelector(".card") !== card) seen(performance.now() - began); }).observe(queue, { childList: true }));
  const stored = new Promise((seen) => new MutationObserver(() => {
    if (strip.firstChild && strip.firstChild.innerText.endsWith("stored")) seen(performance.now() - began);
  }).observe(strip, { childList: true, subtree: true, characterData: true }));
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "r", bubbles: true }));
  return [await next, await stored];
}"""
"""Presses `r`; returns the milliseconds until the next candidate is in the page, and until the label is stored."""


def store_of(place: Path, *, cadences: int, each: int):
    """Fill a store in a folder with nights that end today; return its configuration."""
    (place / "config.yaml").write_text(yaml.safe_dump({"state_dir": "var"}))
    (place / "var").mkdir(exist_ok=True)
    config = load_config(place / "config.yaml")
    mjd = int(UNIX_EPOCH_MJD + time.time() / 86_400) - (cadences - 1) // A_NIGHT + 0.03
    drawn = draw_kinds(config, place / "scratch", mjd)
    store = open_store(config.store_url)
    fill(store, drawn, cadences=cadences, each=each, seed=1, mjd=mjd)
    label_some(store, 0.3, 2)
    store.engine.dispose()
    return config


def show_signal(store, place: Path) -> None:
    """Give the most probable candidate the values of the signal that its waterfall shows, and a stamp of it."""
    kind, header = KINDS["signal"], gbt_header(NCHANS)
    shown = {"frequency_mhz": header.frequency(0.37 * NCHANS), "target": TARGETS_OF_NIGHT[0], "snr": list(kind.snr)}
    shown |= {"joint_snr": sum(kind.snr) / 3**0.5, "barycentric_mhz": header.frequency(0.37 * NCHANS) * 0.99997}
    shown |= {"drift_rate_hz_s": kind.drift_hz_s, "drift_nhz": kind.drift_hz_s / header.frequency(0) * 1e3}
    with store.write() as rows:
        best = rows.scalars(select(candidate.c.id).order_by(candidate.c.probability.desc()).limit(1)).one()
        rows.execute(update(candidate).where(candidate.c.id == best).values(**shown, label_in_force=None))
        rows.execute(delete(label).where(label.c.candidate_id == best))
        stamp, paths = place / "var" / "pictures" / "signal.stamp", sorted((place / "scratch" / "signal").iterdir())
        with open_cadence(paths) as scans:
            started = {"tstart_mjd": scans[0].header.tstart}
            rows.execute(update(candidate).where(candidate.c.id == best).values(**started))
            sha256, size = write_stamp(stamp, scans, {**shown, **started, "curvature_hz_s2": 0.0}, (0, 2, 4), {})
        owner = rows.scalar(select(candidate.c.cadence_id).where(candidate.c.id == best))
        values = {"cadence_id": owner, "candidate_id": best, "kind": "stamp", "path": str(stamp)}
        rows.execute(insert(artefact).values(**values, sha256=sha256, bytes=size))


def take_pictures(place: Path, folder: Path) -> None:
    """Take pictures of the pages of a night for the documents."""
    store = open_store(store_of(place, cadences=A_NIGHT, each=4).store_url)
    show_signal(store, place)
    review(store, 24, 4)
    with program(place) as (port, _), window(store, port, viewport={"width": 1280, "height": 800}) as page:
        shots = {"desk-night": "/", "desk-label": "/label?p=0.5.."}
        for name, path in shots.items():
            page.goto(f"http://127.0.0.1:{port}{path}")
            page.wait_for_selector("body[data-keys]")
            page.wait_for_timeout(1500)  # the map, pictures and thumbnails
            small = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(192)
            small.save(folder / f"{name}.png", optimize=True)
            print(folder / f"{name}.png", (folder / f"{name}.png").stat().st_size)
    store.engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50_000, help="in the store that is measured (default 50,000)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="keep the store here, and use it again if it exists")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="take pictures instead, into this folder")
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            take_pictures(Path(place), options.pictures)
        else:
            (where := options.store or Path(place)).mkdir(parents=True, exist_ok=True)
            measure(where.absolute(), options.candidates)


if __name__ == "__main__":
    main()
