"""Alarm budgets: the lowest threshold that allows so many false alarms in 100 MHz."""

from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

BUDGETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Alarms per 100 MHz for which the card of a release holds a threshold."""


def alarm_table(
    probabilities: Float64[np.ndarray, " alarms"],
    counts: Float64[np.ndarray, " alarms"],
    kinds: Shaped[np.ndarray, " alarms"],
    allowed: float,
) -> dict[str, Any]:
    """Return for a release's card the threshold for each of `BUDGETS`, and that of the release with its alarms by kind.

    A threshold lies just above the probability of the first alarm that the budget does not pay for.

    Args:
        probabilities: of everything that would be a false alarm.
        counts: how many alarms in 100 MHz each stands for.
        kinds: of the interference that each is; "" for none.
        allowed: alarms in 100 MHz that the release's threshold allows.
    """
    order = np.argsort(-probabilities, kind="stable")
    above, ranked = np.cumsum(counts[order]), probabilities[order]
    first = np.searchsorted(above, (*BUDGETS, allowed), side="right")
    thresholds = [float(np.nextafter(ranked[i], 2)) if i < len(above) else 0.0 for i in first]
    passed = probabilities >= thresholds[-1]
    return {
        "per_100_mhz": list(BUDGETS),
        "threshold": thresholds[:-1],
        "allowed": allowed,
        "threshold_allowed": thresholds[-1],
        "kinds": {
            kind or "none": round(float(counts[passed & (kinds == kind)].sum()), 4)
            for kind in np.unique(kinds).tolist()
        },
    }  # fmt: skip


def text_of(kinds: dict[str, float]) -> str:
    """Describe alarms by kind."""
    seen = {kind: alarms for kind, alarms in kinds.items() if alarms}
    return ", ".join(f"{kind.replace('_', ' ')} {alarms:.2g}" for kind, alarms in seen.items()) or "none seen"


def measured_text(alarms: dict[str, Any], threshold: float) -> str:
    """Describe a table of alarms that was measured on the zoo, for CARD.md.

    Args:
        alarms: from `alarm_table`, with the band `mhz` and the `seed`.
        threshold: of the release.
    """
    budgets = zip(alarms["per_100_mhz"], alarms["threshold"], strict=True)
    return f"""The threshold of `tracks` is {threshold:.4f}, in place of that of the training. It allows
{alarms["allowed"]:g} alarms in 100 MHz: {text_of(alarms["kinds"])}.
Measured in {alarms["mhz"]:,.0f} MHz of the scenario `zoo` of `./sentinel.py evaluate`, seed {alarms["seed"]}.

| alarms in 100 MHz | threshold |
| --- | --- |
{"".join(f"| {budget:g} | {least:.4f} |{chr(10)}" for budget, least in budgets)}"""
