"""Shape and type checks are on for the science while tests run; what several files stand on is here."""

import pytest
from jaxtyping import install_import_hook

pytest_plugins = ["faults"]
_HOOK = install_import_hook("aetherscan", "shapes.check")


@pytest.fixture
def store(tmp_path):
    from sentinel.store import open_store

    opened = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    yield opened
    opened.engine.dispose()


@pytest.fixture
def slack():
    from fake_slack import FakeSlack

    served = FakeSlack()
    yield served
    served.close()
