"""Switch on the shape checks of the science, fix the examples of the property tests, and define shared fixtures."""

import itertools

import hypothesis
import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["fault_matrix"]
_HOOK = install_import_hook("aetherscan", "shapes.check")

# Every run draws the same examples, so that a failure is a change of the code. `explore` draws new ones.
hypothesis.settings.register_profile("ci", derandomize=True, database=None, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ci")


@pytest.fixture(scope="session")
def postgres():
    """Run a PostgreSQL server until the tests end."""
    from postgres import FAST, Server

    server = Server(*FAST)
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """Return a function that gives the URL of a new empty store, on each engine in turn."""
    if request.param == "sqlite":
        count = itertools.count()
        yield lambda: f"sqlite:///{tmp_path}/sentinel{next(count) or ''}.db"
    else:
        server = request.getfixturevalue("postgres")
        yield server.database
        server.drop_all()


@pytest.fixture
def store(empty):
    """Open an empty store."""
    from sentinel.store.queue import open_store

    opened = open_store(empty())
    yield opened
    opened.engine.dispose()


@pytest.fixture
def slack():
    """Run a Slack server on loopback."""
    from fake_slack import FakeSlack

    server = FakeSlack()
    yield server
    server.close()


@pytest.fixture
def service(tmp_path, slack):
    """Return a service with its own state folder; stop it afterwards and check that no process is left."""
    from running import Service

    from sentinel.programs.supervisor import service_pids

    made = Service(tmp_path, slack)
    yield made
    made.run("down", check=False)
    assert service_pids(made.config) == []
    if made.store:
        made.store.engine.dispose()
