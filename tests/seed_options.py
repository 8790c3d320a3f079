"""Every option of Aetherscan's commands, in every form that it accepts."""

from sentinel.config import ROOT

ACCEPTED = [
    (command, option, form.split())
    for line in (ROOT / "tests" / "data" / "seed_options.txt").read_text().splitlines()
    if not line.startswith("#")
    for command, option, forms in [line.split(" ", 2)]
    for form in forms.split(" | ")
]
