"""Draw windows with Aetherscan's own generator; `seed_windows.py` runs this where that package is installed.

Each line of standard input is JSON: the generator's function, its arguments, and the paths of the arrays.
"""

import json
import random
import sys

import numpy as np
from numpy.random import mtrand

from aetherscan import data_generation

# Without its logarithm, because raw power is needed; its statistics only feed its database.
vars(data_generation).update(
    log_norm=lambda data, **_: (data, (0.0, 1.0)),
    _compute_intensity_stats=lambda _: {},
)
for line in sys.stdin:
    asked = json.loads(line)
    random.seed(asked["seed"])
    mtrand.seed(asked["seed"])  # the generator it uses
    plates, create = np.load(asked["plates"]), getattr(data_generation, asked["function"])
    made = [create(plates, **asked["given"]) for _ in range(asked["count"])]
    np.save(asked["windows"], np.array([window for window, _ in made], dtype=np.float32))
    facts = [info["signal_info"] for _, info in made]
    np.save(asked["signals"], [[fact.get(f"eti_{name}", 0.0) for name in ("snr", "signal_width")] for fact in facts])
    print("drawn", flush=True)
