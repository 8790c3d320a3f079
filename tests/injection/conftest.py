"""A simulated cadence with a tone, shared by the injection tests."""

import pytest

from sentinel.injection.tone import write_sky


@pytest.fixture(scope="session")
def sky(tmp_path_factory):
    """Return the paths of six observations and the tone in them."""
    return write_sky(tmp_path_factory.mktemp("sky"), 5, ".fil", "DEMO5")
