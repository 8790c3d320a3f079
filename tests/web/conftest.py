"""A browser for all tests of the pages, and a store with candidates to look at."""

import pytest
from browser import Person, chromium
from judging import looks_like
from rows import record_candidates
from visitor import desk_of

from sentinel.store.queue import open_store


@pytest.fixture(scope="session")
def browser():
    """Run Chromium until the tests end."""
    with chromium() as started:
        yield started


@pytest.fixture
def judged(tmp_path):
    """Open a store with eight candidates of one cadence, the first the most probable."""
    (tmp_path / "var").mkdir()
    store = open_store(f"sqlite:///{tmp_path}/var/sentinel.db")
    record_candidates(store, [looks_like(i) for i in range(8)])
    yield store
    store.engine.dispose()


@pytest.fixture
def people(browser, judged, tmp_path):
    """Return a function that opens a window for a person; every window must end without problems."""
    opened = []
    with desk_of(judged, tmp_path) as port:

        def person(name="", **options):
            opened.append(Person(browser, judged, port, name, **options))
            return opened[-1]

        yield person
        for window in opened:
            window.close()
