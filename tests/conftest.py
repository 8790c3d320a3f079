"""Shape and type checks are on for the science while tests run; what several files stand on is here."""

import itertools

import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["fault_matrix"]
_HOOK = install_import_hook("aetherscan", "shapes.check")


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, for as long as the tests run."""
    from postgres import FAST, Server

    served = Server(*FAST)
    yield served
    served.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request, tmp_path):
    """Return the URL of one more empty store, on either engine."""
    if request.param == "sqlite":
        count = itertools.count()
        yield lambda: f"sqlite:///{tmp_path}/sentinel{next(count) or ''}.db"
    else:
        server = request.getfixturevalue("postgres")
        yield server.database
        server.drop_all()


@pytest.fixture
def store(empty):
    from sentinel.store.queue import open_store

    opened = open_store(empty())
    yield opened
    opened.engine.dispose()


@pytest.fixture
def slack():
    from fake_slack import FakeSlack

    served = FakeSlack()
    yield served
    served.close()


@pytest.fixture
def service(tmp_path, slack):
    """A service of its own, of which nothing is left afterwards."""
    from running import Service

    from sentinel.programs.supervisor import left

    made = Service(tmp_path, slack)
    yield made
    made.run("down", check=False)
    assert left(made.config) == []
    if made.store:
        made.store.engine.dispose()
