"""A budget of alarms is the lowest threshold that does not exceed it."""

import numpy as np
import pytest

from aetherscan.detector.alarms import BUDGETS, alarm_table, measured_text, text_of

PROBABILITIES = np.random.default_rng(1).permutation(np.linspace(0.01, 1, 100))
COUNTS = np.full(100, 0.04)
KINDS = np.where(PROBABILITIES > 0.9, "side_lobe", "")


@pytest.mark.parametrize("allowed", [0.1, 0.35, 3.0])
def test_each_threshold_allows_its_budget_and_the_next_alarm_would_exceed_it(allowed):
    table = alarm_table(PROBABILITIES, COUNTS, KINDS, allowed)
    thresholds = dict(zip(table["per_100_mhz"], table["threshold"], strict=True)) | {
        allowed: table["threshold_allowed"]
    }
    assert set(thresholds) == {*BUDGETS, allowed}
    for budget, threshold in thresholds.items():
        alarms = COUNTS[threshold <= PROBABILITIES].sum()
        assert alarms <= budget + 1e-9
        assert threshold == 0 or alarms + 0.04 > budget - 1e-9
    assert sum(table["kinds"].values()) == pytest.approx(COUNTS[table["threshold_allowed"] <= PROBABILITIES].sum())
    assert table["allowed"] == allowed


def test_a_budget_above_all_alarms_needs_no_threshold():
    assert alarm_table(PROBABILITIES, COUNTS, KINDS, 5.0)["threshold_allowed"] == 0
    assert set(alarm_table(np.empty(0), np.empty(0), np.empty(0, dtype=str), 0.5)["threshold"]) == {0.0}


def test_alarms_are_described_by_kind():
    table = alarm_table(PROBABILITIES, COUNTS, KINDS, 0.5)
    text = measured_text({**table, "mhz": 2400.0, "seed": 3}, table["threshold_allowed"])
    assert "allows\n0.5 alarms in 100 MHz: none 0.08, side lobe 0.4.\n" in text
    assert "2,400 MHz" in text
    assert text.count("\n| ") == 2 + len(BUDGETS)
    assert text_of({"none": 0.0}) == "none seen"
