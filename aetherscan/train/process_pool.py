"""Processes that work in memory they share with the one that asks them.

The memory is a file without a name: there is nothing in `/dev/shm` to leave behind, nor its limit to run into, which is
64 MB in a container. A process lives as long as its pipe: however the one that asks may end, the others read the end of
the pipe and go. A process that ends, or fails at what it was asked, is an error of the one that asks.
"""

import math
import mmap
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any

import numpy as np

from aetherscan.errors import FeedError

SharedArrays = dict[str, np.ndarray]
Plan = Mapping[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each array that is shared, by name."""
LEAVING_S = 5.0


def _size(kind: str, shape: tuple[int, ...]) -> int:
    """Return bytes of an array, in whole pages."""
    return -(-np.dtype(kind).itemsize * math.prod(shape) // mmap.PAGESIZE) * mmap.PAGESIZE


def _rooms(memory: int, plan: Plan) -> SharedArrays:
    shared, first, rooms = mmap.mmap(memory, 0), 0, {}
    for name, (kind, shape) in plan.items():
        rooms[name] = np.ndarray(shape, kind, buffer=shared, offset=first)
        first += _size(kind, shape)
    return rooms


def _work(pipe: Connection, memory: Connection, plan: Plan, known: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everyone at the terminal: the one that asks decides
    rooms = _rooms(memory.fileno(), plan)
    with suppress(EOFError, OSError):
        while True:
            job, arguments = pipe.recv()
            try:
                job(known, rooms, *arguments)
            except Exception as error:
                pipe.send(traceback.format_exc())
                raise SystemExit(1) from error
            pipe.send(None)


class ProcessPool(AbstractContextManager["ProcessPool"]):
    """Processes, what each was asked and has not answered, and the memory that all of them see."""

    def __init__(self, processes: int, plan: Plan, known: Any) -> None:
        # A connection, because that is a descriptor that travels to a process when it starts.
        memory, context = Connection(os.memfd_create("examples")), get_context("spawn")
        os.ftruncate(memory.fileno(), sum(_size(*each) for each in plan.values()))
        self.rooms = _rooms(memory.fileno(), plan)
        self._members: list[tuple[SpawnProcess, Connection, deque[Any]]] = []
        try:
            for _ in range(processes):
                ours, theirs = context.Pipe()
                one = context.Process(target=_work, args=(theirs, memory, plan, known), daemon=True)
                one.start()
                theirs.close()
                self._members.append((one, ours, deque()))
        finally:
            memory.close()

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return any(asked for _, _, asked in self._members)

    def ask(self, name: Any, job: Callable[..., None], *arguments: Any) -> None:
        """Ask whoever has least to do to call `job` with what the crew knows, its rooms, and `arguments`."""
        one, pipe, asked = min(self._members, key=lambda member: len(member[2]))
        asked.append(name)
        try:
            pipe.send((job, arguments))
        except OSError:
            self._lost(one, name)

    def answer(self) -> Any:
        """Wait until something asked is done; return its name.

        Raises:
            FeedError: a process ended, or failed at what it was asked.
        """
        ready = wait([pipe for _, pipe, asked in self._members if asked])
        one, pipe, asked = next(member for member in self._members if member[1] in ready)
        name = asked.popleft()
        try:
            trouble = pipe.recv()
        except (EOFError, OSError):
            self._lost(one, name)
        if trouble:
            raise FeedError(f"process {one.pid}, asked for {name}, failed:\n{trouble}")
        return name

    def _lost(self, one: SpawnProcess, name: Any) -> None:
        one.join(LEAVING_S)
        raise FeedError(f"process {one.pid}, asked for {name}: expected an answer, found it ended ({one.exitcode})")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all of them."""
        for one, pipe, _ in self._members:
            pipe.close()
            one.join(LEAVING_S)
            if one.is_alive():
                one.kill()
                one.join()
