"""Look-alikes: the candidates whose latents are nearest to those of another, within one release.

The encoder knows shapes. Distances are Euclidean over the latents of all observations. All latents are compared; they
stay in memory, 192 bytes a candidate of six observations, and new ones are read when they are asked for.
"""

import threading
from array import array
from collections import defaultdict
from collections.abc import Mapping, MutableSequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, LargeBinary, func, select, type_coerce

from sentinel.store.schema import candidate

MOST = 200_000
"""Newest candidates that are compared."""
Kind = tuple[str, int]
"""sha256 of the release, and bytes of the latents: only these can be compared."""


@dataclass(slots=True)
class _Group:
    ids: MutableSequence[int] = field(default_factory=lambda: array("q"))
    raw: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class Latents:
    """Latents of the store, in memory."""

    _groups: dict[Kind, _Group] = field(default_factory=lambda: defaultdict(_Group))
    _last: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def nearest(self, rows: Connection, row: Mapping[str, Any], count: int) -> list[tuple[int, float]]:
        """Return ids and distances of the candidates nearest to a row, the nearest first; none without latents."""
        if not (latents := row["latents_f32"]):
            return []
        own = np.array(latents, dtype="<f4")
        with self._lock:
            self._read_new(rows)
            group = self._groups[row["release_sha256"], own.nbytes]
            ids = np.array(group.ids)
            offsets = np.frombuffer(group.raw, dtype="<f4").reshape(len(ids), -1) - own
        squared = np.einsum("ij,ij->i", offsets, offsets)
        squared[ids == row["id"]] = np.inf
        best = np.argsort(squared)[:count] if len(ids) <= count else np.argpartition(squared, count)[:count]
        best = best[np.argsort(squared[best], kind="stable")]
        return [(int(ids[i]), float(squared[i] ** 0.5)) for i in best if np.isfinite(squared[i])]

    def _read_new(self, rows: Connection) -> None:
        raw = type_coerce(candidate.c.latents_f32, LargeBinary)
        oldest = (rows.scalar(select(func.max(candidate.c.id))) or 0) - MOST
        unread = select(candidate.c.id, candidate.c.release_sha256, raw).order_by(candidate.c.id)
        for row_id, release, packed in rows.execute(unread.where(candidate.c.id > max(self._last, oldest))):
            if packed:
                group = self._groups[release, len(packed)]
                group.ids.append(row_id)
                group.raw += packed
            self._last = row_id
