"""The figures of a training are drawn for encoders of any size."""

import numpy as np
import pytest

from aetherscan.plotting.html import picture
from aetherscan.plotting.training import draw_latents


@pytest.mark.parametrize("latents", [1, 2, 8])
def test_the_latents_of_an_encoder_with_any_number_of_them_are_drawn(latents):
    ons, offs = np.random.default_rng(1).normal(size=(2, 6, latents))
    drawn = {}

    def draw(panels):
        draw_latents(panels, ons, offs, np.arange(6) < 3)
        drawn.update({line.get_label(): line.get_xydata() for line in panels[0].get_lines()})

    assert "data:image/png" in picture("Latents", 2, draw)
    assert drawn["ONs"].shape == drawn["OFFs"].shape == (3, 2)
    lengths = np.linalg.norm(drawn["ONs"] - drawn["OFFs"], axis=1)
    assert lengths == pytest.approx(np.linalg.norm((ons - offs)[:3], axis=1)) or latents > 2
