"""Draw windows with Aetherscan's own generator, for `seed_windows.py`, which runs this where that package is installed.

Each line of standard input is JSON: the generator's function, what it is given, and where the arrays go.
"""

import json
import random
import sys

import numpy as np
from numpy.random import mtrand

from aetherscan import data_generation

# Its logarithm is left out, as raw power is asked for; its statistics are for its database alone.
vars(data_generation).update(
    log_norm=lambda data, **_: (data, (0.0, 1.0)),
    _compute_intensity_stats=lambda _: {},
)
for line in sys.stdin:
    asked = json.loads(line)
    random.seed(asked["seed"])
    mtrand.seed(asked["seed"])  # where it draws from
    plates, create = np.load(asked["plates"]), getattr(data_generation, asked["function"])
    made = [create(plates, **asked["given"]) for _ in range(asked["count"])]
    np.save(asked["windows"], np.array([window for window, _ in made], dtype=np.float32))
    facts = [info["signal_info"] for _, info in made]
    np.save(asked["told"], [[one.get(f"eti_{name}", 0.0) for name in ("snr", "signal_width")] for one in facts])
    print("drawn", flush=True)
