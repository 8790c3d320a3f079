"""A worker turns a search into rows, a message, pictures and training examples."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector
from rows import CANDIDATE

from aetherscan.header import gbt_header
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import Config
from sentinel.workers.search import build_message, search_files


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


def test_lines_that_were_rejected_are_recorded_with_the_band_and_its_pointing(tmp_path):
    header = gbt_header(4096)
    both = Emitter(frequency_mhz=header.frequency(1200), drift_hz_s=0.0, width_hz=4.0, snr=(40.0,) * 6)
    middle = (0.0, 0.0, 40.0, 0.0, 0.0, 0.0)
    once = Emitter(frequency_mhz=header.frequency(3000), drift_hz_s=0.0, width_hz=4.0, snr=middle)
    paths = write_cadence(tmp_path, Sky(header=header, emitters=(both, once)), 1)
    result = search_files(paths, "ABACAD", lambda _: None, Config(state_dir=tmp_path), make_detector(), 7)
    assert result.candidates == []
    lines = result.occupancy
    assert (lines.telescope_id, lines.target, lines.tstart) == (6, header.source_name, header.tstart)
    assert lines.band_mhz == header.band_mhz
    for channel in (1200, 3000):
        assert np.abs(lines.lines_mhz - header.frequency(channel)).min() < 5e-6
    assert len(lines.lines_mhz) < 10


ZONE = {"low_mhz": 1499.99, "high_mhz": 1500.0, "reason": "a beacon"}


@pytest.mark.parametrize(
    ("zones", "muted"),
    [
        ([], None),
        ([ZONE], "a beacon"),
        ([{**ZONE, "low_mhz": 1400.0, "high_mhz": 1499.0}], None),
        ([{**ZONE, "since": "2020-09-11", "until": "2020-09-11"}], "a beacon"),  # the day of MJD 59103
        ([{**ZONE, "since": "2020-09-12"}], None),
        ([{**ZONE, "until": "2020-09-10"}, {**ZONE, "reason": "another"}], "another"),
    ],
)
def test_a_candidate_in_a_mute_zone_is_recorded_and_not_announced(paths, tmp_path, zones, muted):
    config = Config(state_dir=tmp_path, mute=zones)
    result = search_files(paths, "ABACAD", lambda _: None, config, make_detector(), 7)
    assert [row["muted"] for row in result.candidates] == [muted]
    assert (result.message is None) == bool(muted)


def test_a_message_shows_first_what_no_other_cadence_had_and_leaves_out_what_is_muted(tmp_path):
    rows = [
        {**CANDIDATE, "frequency_mhz": mhz, "probability": p, "seen_cadences": n, "seen_of": 40, "seen_targets": 12}
        for mhz, p, n in ((1401.0, 0.99, 37), (1402.0, 0.98, 0), (1403.0, 0.97, 0), (1404.0, 0.9, 1))
    ]
    rows[1]["muted"] = "a beacon"
    config = Config(state_dir=tmp_path)
    message = build_message(config, gbt_header(4096), 1, ["a", "b", "c", "d"], rows)
    listed = [line.split()[0] for line in message["text"].splitlines() if "MHz  " in line]
    assert listed == ["1403.000000", "1404.000000", "1401.000000"]
    assert message["pictures"] == ["c", "d", "a"]
    assert "lines here in 37 of 40 cadences, 12 other targets" in message["text"]
    assert message["text"].startswith("*3 candidates*")
