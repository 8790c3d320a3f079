"""Show how far a long step is: a bar on a terminal, a line every minute elsewhere."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

EVERY_S = 60.0
"""Seconds between two lines."""


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Progress of a step, from its construction until `close`.

    Args:
        what: the step.
        total: its parts.
        tell: receives lines where there is no terminal.
        clock: returns seconds.
    """

    def __init__(
        self, what: str, total: int, tell: Callable[[str], object] = _write, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.what, self.total, self.done, self._tell, self._clock = what, total, 0, tell, clock
        self._bar = tqdm(desc=what, total=total, leave=False, disable=not sys.stderr.isatty())
        self._began = self._told = clock()
        self._at_first, self._results = 0, ""

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()

    def describe(self, what: str, results: str = "") -> None:
        """Name the present part, and the results so far."""
        self.what, self._results = what, results
        self._bar.set_description(what, refresh=False)
        self._bar.set_postfix_str(results, refresh=False)

    def restart_at(self, done: int) -> None:
        """Go back to a number of finished parts: the later ones are repeated."""
        self.done = self._bar.n = self._at_first = done
        self._began = self._clock()

    def advance(self, parts: int = 1) -> None:
        """Count finished parts, and write a line if a minute has passed since the last one."""
        self.done += parts
        self._bar.update(parts)
        now = self._clock()
        if self._bar.disable and now - self._told >= EVERY_S:
            self._told = now
            self._tell(self.line(now))

    def line(self, now: float) -> str:
        """Return the present state as a line."""
        left_s = (now - self._began) * (self.total - self.done) / max(1, self.done - self._at_first)
        results = f", {self._results}" if self._results else ""
        return f"{self.what}: {100 * self.done / max(1, self.total):.0f}%{results}, {duration(left_s)} left"


def duration(seconds: float) -> str:
    """Return seconds as minutes, or as hours and minutes."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
