"""The service: it watches folders, queues and searches cadences, and records and announces candidates."""

from pathlib import Path

VERSION = "0.1.0"
COMMAND = "./sentinel.py" if (Path(__file__).parents[1] / "sentinel.py").exists() else "sentinel"
"""How a person runs a command: the file of a checkout, else the command that pip installed."""
