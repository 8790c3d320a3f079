"""The fluxes and powers of an evaluation are those of the published limits."""

import pytest

from aetherscan.evaluate.sensitivity import SEFD_JY, eirp_w, flux_w_m2


@pytest.mark.parametrize(("telescope", "watts"), [("Green Bank, L and S band", 2.1e12), ("Parkes, 10 cm", 9.1e12)])
def test_the_published_limits_follow_from_snr_10_in_300_s_at_50_pc(telescope, watts):
    flux = flux_w_m2(10.0, SEFD_JY[telescope], width_hz=3.0, seconds=300.0)
    assert eirp_w(flux, 50.0) == pytest.approx(watts, rel=0.03)


def test_the_power_grows_with_the_square_of_the_distance_and_the_flux_with_the_root_of_the_width():
    assert eirp_w(1e-26, 100.0) == pytest.approx(100 * eirp_w(1e-26, 10.0))
    assert flux_w_m2(5.0, 10.0, width_hz=40.0) == pytest.approx(2 * flux_w_m2(5.0, 10.0, width_hz=10.0))
