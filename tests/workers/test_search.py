"""A worker turns a search into rows, a message, pictures and training examples."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector

from aetherscan.header import gbt_header
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import Config
from sentinel.workers.search import search_files


@pytest.fixture
def paths(tmp_path):
    header = gbt_header(4096)
    tone = Emitter(frequency_mhz=header.frequency(1200), drift_hz_s=0.3, width_hz=4.0, snr=(40.0, 0.0) * 3)
    return write_cadence(tmp_path, Sky(header=header, emitters=(tone,)), 1)


def test_two_candidates_within_1_hz_have_a_picture_and_an_example_each(paths, tmp_path, monkeypatch):
    def two_candidates(*arguments):
        result = search_cadence(*arguments)
        (only,) = result.candidates
        close = replace(only, frequency_mhz=only.frequency_mhz + 1e-8, probability=only.probability / 2)
        rows = {name: np.repeat(getattr(result, name), 2, axis=0) for name in ("snippets", "measurements")}
        return replace(result, candidates=(close, only), **rows)

    monkeypatch.setattr("sentinel.workers.search.search_cadence", two_candidates)
    config = Config(state_dir=tmp_path)
    first, second = (search_files(paths, "ABACAD", lambda _: None, config, make_detector(), 7) for _ in range(2))
    assert first.candidates[0]["probability"] > first.candidates[1]["probability"]
    files = [path for _, path, *_ in [*first.pictures, *first.examples]]
    assert len(set(files)) == 4
    assert (second.pictures, second.examples) == (first.pictures, first.examples)
    assert not config.pictures.exists()  # they are written after the record
