"""The figure of a comparison shows every search once, ours first, and alarms only of searches that raise them."""

import numpy as np
from matplotlib.figure import Figure

from aetherscan.plotting.evaluation import draw_comparison


def test_a_comparison_draws_a_curve_for_each_search_and_the_interval_of_its_alarms():
    panels = list(Figure().subplots(1, 2))
    curve = np.array([[5.0, 0.5, 0.3, 0.7], [10.0, 1.0, 0.8, 1.0]])
    draw_comparison(
        panels, {"ours": curve, "other": curve, "gate": curve}, {"ours": (0.0, 0.0, 2.0), "other": (9.0, 4.0, 17.0)}
    )
    assert [text.get_text() for text in panels[0].get_legend().get_texts()] == ["ours", "other", "gate"]
    assert [tick.get_text() for tick in panels[1].get_yticklabels()] == ["other", "ours"]
    bars = [container.lines[2][0].get_segments()[0][:, 0].tolist() for container in panels[1].containers]
    assert bars == [[4, 17], [0, 2]]
