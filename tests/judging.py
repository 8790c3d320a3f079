"""Candidates to look at, for tests of the desk."""

from rows import CANDIDATE


def looks_like(i, **changes):
    """Return the row of a candidate; a smaller number is more probable."""
    own = {"frequency_mhz": 1420.0 + i, "probability": 0.9 - i / 20, "latents": [], "latents_f32": [float(i)] * 48}
    return {**CANDIDATE, "target": f"HIP{i + 1}", "joint_snr": 30.0, **own, **changes}
