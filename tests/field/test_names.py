"""An OFF is recognized in every spelling that observers use, and no name of a star is taken for an OFF."""

import pytest

from aetherscan.cadence.names import named_off

OFFS = (
    *("HIP1_OFF", "HIP1-OFF", "HIP1 OFF", "HIP1.off", "HIP1_Off", "HIP1(OFF)", "HIP1 [off]", "3C286_OFF"),
    *("OFF_HIP1", "off-HIP1", "OFF HIP1", "OFF1_HIP1", "OFF", "OFF2", "REF_HIP1", "HIP1_REF", "HIP1-ref2", "REF"),
    *("HIP1_OFF1", "HIP1_off_2", "HIP1_OFF_NORTH", "DIAG_VOYAGER-1_OFF", "HIP1_OFFSET", "OFFSRC_HIP1"),
    *("HIP1off", "TIC1234Off", "HIP1OFF", "HIP1off2", "VOYAGERoff", "VoyagerOFF", "Xoff", "OFFHIP1", "offTIC12"),
    *("HIP1_R", "HIP1_r", "Proxima_OFF ", "HIP1_reference"),
)
TARGETS = (
    *("COFFEE", "coffee", "HIPOFF", "KICKOFF", "Kirchhoff", "Hoff", "OFFENBACH", "Offenburg", "Official_7", "TRADEOFF"),
    *("HIP1", "HIP1_S", "HIP1_ON", "R_LEO", "RR_LYR", "R", "UV-CET", "SGR_A", "REFLECTION_1", "PREF_3"),
    *("VOYAGER-1", "3C48", "NGC7000", "M31", "", "TIC154741689", "C/2023_A3", "BEREFT", "J0534+2200", "OFFA"),
)


@pytest.mark.parametrize("name", OFFS)
def test_a_name_with_off_or_ref_as_a_word_is_an_off(name):
    assert named_off(name)


@pytest.mark.parametrize("name", TARGETS)
def test_a_name_that_only_contains_the_letters_is_a_target(name):
    assert not named_off(name)
