"""Rows of a store for tests: queued cadences, candidates and messages."""

import uuid
from dataclasses import replace

from sqlalchemy import func, insert, select, update

from sentinel.monitor import status
from sentinel.notify.messages import message_text
from sentinel.store.queue import OWED, SearchRecord, open_store
from sentinel.store.schema import artefact, attempt, cadence, cadence_file, candidate, file, now

CANDIDATE = {
    "frequency_mhz": 8419.3197,
    "drift_rate_hz_s": 0.35,
    "bandwidth_hz": 4.0,
    "snr": [20.0, 0.1, 21.0, 0.2, 19.0, 0.3],
    "probability": 0.97,
    "latents": [0.0] * 48,
    "proposer_score": 21.0,
    "target": "HIP99427",
    "tstart_mjd": 59103.02,
    "mode": "windows",
    "release_name": "r1",
    "release_sha256": "ab" * 32,
    "code_version": "0",
    "config_sha256": "cd" * 32,
    "picture": "a.png",
}
MESSAGE = {"posters": ["slack"], "state": "pending", "text": "one candidate", "pictures": []}


def found(count=1, message=None):
    return SearchRecord(
        candidates=[CANDIDATE] * count,
        pictures=[(0, "a.png")][:count],
        release=("r1", "ab" * 32),
        run={"counts": {"windows": 1}},
        message=(lambda _: message) if message else None,
    )


def queue(store, tstart=59000.0, state="ready", present=True):
    """Put a cadence of six files into the store; return its id."""
    key = uuid.uuid4().hex
    with store.write() as rows:
        new = {"key": key, "state": state, "target": "T", "pattern": "ABACAD", "tstart": tstart}
        new |= {"band_low_mhz": 1, "band_high_mhz": 2}
        made = rows.scalars(
            insert(cadence).values(**new, created_at=now(), ready_at=now()).returning(cadence.c.id)
        ).one()
        for position in range(6):
            observation = f"{key}-{position}"
            rows.execute(insert(cadence_file).values(cadence_id=made, position=position, observation=observation))
            stamp = {"size": 1, "mtime_ns": 1, "inode": "1", "changed_at": now(), "present": present}
            rows.execute(insert(file).values(path=f"/d/{observation}", state="valid", observation=observation, **stamp))
    return made


def row(store, table, **where):
    with store.read() as rows:
        return rows.execute(select(table).filter_by(**where)).one()


def count(store, table):
    with store.read() as rows:
        return rows.scalars(select(func.count()).select_from(table)).one()


def owed_count(store):
    """Return how many pictures and examples are not written yet."""
    with store.read() as rows:
        owed = (artefact.c.sha256 == OWED) & (artefact.c.kind != "stamp")
        return rows.scalars(select(func.count()).select_from(artefact).where(owed)).one()


def record(store, target="T", tstart=59000.0, count=1, pictures=(), **values):
    """Complete a new cadence with candidates and a message, as a worker does; return its id."""
    made = queue(store, tstart)
    with store.write() as rows:
        rows.execute(update(cadence).where(cadence.c.id == made).values(target=target))

    def message(recorded):
        text = message_text(target, (1, 2), tstart, "r1", recorded)
        fields = {"posters": ["slack"], "state": "pending", "sequence": f"6 {target}", "pictures": list(pictures)}
        return {**fields, "text": text, **values}

    store.complete(store.claim(60).token, replace(found(count), pictures=[], message=message))
    return made


def record_candidates(store, candidates, message=None):
    """Complete one more cadence with these candidates."""
    queue(store)
    store.complete(store.claim(60).token, replace(found(), candidates=candidates, pictures=[], message=message))


def claim_all(url, barrier, results):
    """Complete cadences until none is ready, in a process of its own; put their ids into `results`."""
    store = open_store(url)
    barrier.wait()
    claimed = []
    while lease := store.claim(60):
        store.complete(lease.token, found())
        claimed.append(lease.cadence_id)
    results.put(claimed)


def open_and_close(url, barrier):
    """Open a store, in a process of its own."""
    barrier.wait()
    open_store(url).engine.dispose()


def done_once(store):
    assert (row(store, cadence).state, count(store, candidate), row(store, attempt).outcome) == ("done", 1, "done")


def alive(store):
    """Write the heartbeats of a watcher and a worker."""
    for name in ("watcher", "worker-0"):
        store.record_heartbeat(name, 10, pid=1, host="h")


def status_of(config, store, monkeypatch, programs):
    monkeypatch.setattr(
        status, "program_states", lambda _: {name: {"statename": state} for name, state in programs.items()}
    )
    return status.read_status(config, lambda: store)


RUNNING = dict.fromkeys(("cluster", "watcher", "poster"), "RUNNING")
