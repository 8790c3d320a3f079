"""The colors of every figure and page, and the layout of a waterfall. Loads no matplotlib, so pages may use it."""

INK = "#1b1b1f"
"""Text and axes."""
SIGNAL = "#c8102e"
"""Observations of the target (ON)."""
QUIET = "#6b6b75"
"""Observations away from the target (OFF), and secondary elements."""
TRACK = "#0a84c6"
"""A fitted track, and the second curve of a figure."""
MASKED = "#b9bcc4"
"""Pixels that were not measured."""
HEAD_IN, FOOT_IN = 0.86, 0.74
"""Heights of the text above and below the panels of a waterfall, inches."""
PANELS = (0.245, 0.875)
"""Left and right end of these panels, parts of the width."""
