"""How a release is trained: every option of the first seed's `train` under its name and meaning, and our own.

Each option is said once, here: `sentinel.config` makes the `train:` section of the configuration of it and
`sentinel.cli` its flags, so this module needs nothing but the standard library. Values are checked together and every
mistake is told at once. What the seed could be told and the code here cannot do is refused with the reason.

Our defaults train overnight on a laptop, 0.8 million cadences at some 40/s, and in minutes on a GPU. Where a default
is not the seed's, the comment beside it says why.
"""

import math
import operator
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from aetherscan.errors import RecipeError
from aetherscan.header import SCAN_STEP_S

PLATES = (".npy",)
CADENCES = (".h5", ".hdf5", ".fil")
"""What backgrounds may be: plates of windows (n, 6, 16, 4096), or observations that make cadences."""
TAGS = {"final_vX": r"final_v\d+", "round_XX": r"round_\d+", "YYYYMMDD_HHMMSS": r"\d{8}_\d{6}", "test_vX": r"test_v\d+"}
SHRINK = (16, 128)
"""The encoder halves rows and bins four times; then the bins left are pooled by eight."""
WINDOW_BINNING = 8
LIMITS = {
    "least": (operator.ge, "at least {}"),
    "above": (operator.gt, "more than {}"),
    "most": (operator.le, "at most {}"),
    "below": (operator.lt, "less than {}"),
    "multiple": (lambda value, of: value % of == 0, "a multiple of {}"),
}


def _option(default: Any, text: str, *, heading: str = "", **limits: float) -> Any:
    """Return a field of options; `heading` begins a group of them."""
    return field(default=default, metadata={"help": text, "heading": heading, **limits})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What to train, on what, for how long, and where it is kept.

    Raises:
        RecipeError: every value that is out of range or at odds with another, one a line.
    """

    data_path: Path = _option(Path("data"), "of data (AETHERSCAN_DATA_PATH)", heading="folders")
    model_path: Path = _option(Path("models"), "of releases and checkpoints (AETHERSCAN_MODEL_PATH)")
    output_path: Path = _option(Path("var/training"), "of logs and reports (AETHERSCAN_OUTPUT_PATH)")

    vae_latent_dim: int = _option(8, "latents of one observation", heading="encoder", least=1)
    vae_dense_layer_size: int = _option(512, "units between convolutions and latents", least=1)
    vae_kernel_size: tuple[int, int] = _option((3, 3), "of every convolution, in rows and bins", least=1)
    vae_beta: float = _option(1.5, "weight of the KL divergence beside the reconstruction", least=0)
    vae_alpha: float = _option(10.0, "weight of the clustering of ONs and OFFs", least=0)

    rf_n_estimators: int = _option(1000, "trees of a forest", heading="forests", least=1)
    rf_bootstrap: bool = _option(default=True, text="whether each tree sees a sample of the rows instead of all")
    rf_max_features: float | Literal["sqrt", "log2"] = _option("sqrt", "tried at a split: sqrt, log2, or a share 0-1")
    rf_n_jobs: int = _option(-1, "cores that forests are fitted with; -1: all of them", least=-1)
    rf_seed: int | None = _option(None, "of the forests (default: as --seed)", least=0)

    num_observations: int = _option(6, "of a cadence: ABACAD, three at the target", heading="windows of band")
    width_bin: int = _option(4096, "channels of a window", least=1)
    downsample_factor: int = _option(WINDOW_BINNING, "channels of a window that make one bin")
    time_bins: int = _option(16, "rows of an observation", least=1, multiple=SHRINK[0])
    freq_resolution: float = _option(2.7939677238464355, "Hz, of a channel", above=0)
    time_resolution: float = _option(18.253611008, "s, of a row", above=0)  # the recorder's, to its last digit

    train_files: tuple[str, ...] = _option(  # the seed's three files are in no public archive
        (), "backgrounds in data_path or its folder training: .npy of (n, 6, rows, channels), or .h5 and .fil that make"
        " cadences (default: simulated skies)", heading="backgrounds",
    )  # fmt: skip
    num_target_backgrounds: int = _option(1200, "windows of background that are held", least=1)  # 1.6 MB each
    background_load_chunk_size: int = _option(300, "windows of background read at once", least=1)  # 0.5 GB
    max_chunks_per_file: int = _option(4, "such reads that one file may give", least=1)  # as ours are smaller

    # The seed's 50 rounds of 100 epochs of 499,200 take five GPUs for two days.
    num_training_rounds: int = _option(
        10, "rounds that the encoder is trained; 0 beside start: new forests for its own", heading="rounds", least=0
    )
    epochs_per_round: int = _option(10, "epochs of a round", least=1)
    num_samples_beta_vae: int = _option(9600, "cadences generated for the encoder, a round", least=4, multiple=4)
    num_samples_rf: int = _option(19_200, "examples that each forest learns from, at most", least=4, multiple=4)
    train_val_split: float = _option(0.8, "share that is learned from; the rest validates", above=0, below=1)
    per_replica_batch_size: int = _option(32, "cadences a device takes at once", least=1)  # more is no faster on a CPU
    effective_batch_size: int = _option(32, "cadences between two steps, over all devices", least=1)  # steps count here
    per_replica_val_batch_size: int = _option(64, "cadences a device validates at once", least=1)
    signal_injection_chunk_size: int = _option(512, "cadences made at once", least=4, multiple=4)  # 25 MB

    # SNR is the matched filter's in one observation; the seed's counts six, of signals eight times as wide.
    snr_base: float = _option(
        6.0, "SNR of the faintest signals; below 6 noise alone is as bright", heading="curriculum", above=0
    )
    initial_snr_range: float = _option(54.0, "signals of the first round reach snr_base + this", least=0)
    # Rounds of SNR 6-20 alone make the encoder forget what is bright: docs/performance.md has the figures.
    final_snr_range: float | None = _option(
        None, "signals of the last round reach snr_base + this (default: those of every round do)", least=0
    )
    curriculum_schedule: Literal["linear", "exponential", "step"] = _option("exponential", "how the rounds get harder")
    exponential_decay_rate: float = _option(-3.0, "the more negative, the sooner signals are faint", below=0)
    step_easy_rounds: int = _option(2, "rounds as easy as the first, for the step schedule", least=0)
    step_hard_rounds: int = _option(8, "rounds as hard as the last, for the step schedule", least=0)

    base_learning_rate: float = _option(1e-3, "of Adam, when a round begins", heading="learning rate", above=0)
    min_learning_rate: float = _option(1e-6, "and never less than this", above=0)
    min_pct_improvement: float = _option(1e-3, "share by which validation must improve to count", least=0, below=1)
    patience_threshold: int = _option(3, "epochs without improvement before the rate falls", least=1)
    lr_reduction_factor: float = _option(0.2, "share the rate then falls by", above=0, below=1)

    max_retries: int = _option(3, "attempts after a failure", heading="failure, and going on after it", least=0)
    retry_delay: float = _option(60.0, "s before the first of them; doubles each time", least=0)
    load_dir: str | None = _option(None, "folder of the checkpoint, below model_path")
    load_tag: str | None = _option(None, f"checkpoint to go on from: {', '.join(TAGS)}")
    start_round: int | None = _option(None, "round to begin with (default: the one after the checkpoint's)", least=1)
    save_tag: str | None = _option(None, f"of this run: {', '.join(TAGS)} (default: now)")

    seed: int = _option(1, "of every random draw", heading="beyond the seed's", least=0)
    start: Path | None = _option(None, "folder of a release whose encoder is trained further, from round 1")
    forest_patches: int = _option(3000, "patches of backgrounds, searched for what the forests learn from", least=1)
    # Half of them, 32,000 windows of band, carry a rate of one false alarm in ten thousand.
    judge_patches: int = _option(4000, "and to choose, calibrate and judge them", least=2)
    processes: int = _option(2, "that draw examples", least=1)
    fresh: bool = _option(default=True, text="whether every epoch sees new examples, not its round's again")
    mixed_precision: bool = _option(default=False, text="compute in bfloat16 where the device can, weights in float32")

    def __post_init__(self) -> None:
        """Tell every mistake at once."""
        if wrong := [*_out_of_range(self), *_at_odds(self)]:
            raise RecipeError("\n".join(wrong))

    @property
    def bins(self) -> int:
        """Bins of a snippet."""
        return self.width_bin // self.downsample_factor

    @property
    def backgrounds(self) -> Literal["simulated", "plates", "cadences"]:
        """What signals are injected into."""
        if not self.train_files:
            return "simulated"
        return "plates" if self.train_files[0].endswith(PLATES) else "cadences"

    @property
    def first_round(self) -> int:
        """The round that training begins with, from 1."""
        if self.start_round is not None:
            return self.start_round
        kind, _, number = (self.load_tag or "").partition("_")
        return int(number) + 1 if kind == "round" else 1

    def files(self) -> list[Path]:
        """Return where `train_files` lie.

        Raises:
            RecipeError: some are nowhere.
        """
        return find_files(self.data_path, "training", self.train_files)

    def snr(self, number: int) -> tuple[float, float]:
        """Return the faintest and the brightest SNR of a round, from 1; one round alone is the easiest."""
        share = (number - 1) / max(1, self.num_training_rounds - 1)
        rate = self.exponential_decay_rate
        eases = {
            "linear": 1 - share,
            "exponential": 1 - math.expm1(rate * share) / math.expm1(rate),
            "step": float(number <= self.step_easy_rounds or self.num_training_rounds == 1),
        }
        ease = eases[self.curriculum_schedule]
        first, last = self.initial_snr_range, self.final_snr_range
        return self.snr_base, self.snr_base + (first if last is None else last + ease * (first - last))

    def recorded(self) -> dict[str, Any]:
        """Return what decides the outcome, for a card: no folder of this machine, the names of files alone."""
        kept = {name: value for name, value in asdict(self).items() if not isinstance(value, Path)}
        names = [Path(name).name for name in self.train_files]
        return kept | {"train_files": names, "start": self.start.name if self.start else None}


def find_files(folder: Path, inner: str, names: Sequence[str]) -> list[Path]:
    """Return the files that `names` mean: as they stand, in `folder`, or in its folder `inner`, as the seed keeps them.

    Raises:
        RecipeError: every one that is in none of these.
    """
    places = dict.fromkeys((Path(), folder, folder / inner))
    found = {name: next((place / name for place in places if (place / name).is_file()), None) for name in names}
    if lost := [name for name, path in found.items() if path is None]:
        raise RecipeError("\n".join(f"{name}: expected a file, in {', '.join(map(str, places))}" for name in lost))
    return [path for path in found.values() if path]


def _out_of_range(settings: TrainSettings) -> list[str]:
    """Say which values are beyond the limits of their own option."""
    wrong = []
    for one in fields(settings):
        value = getattr(settings, one.name)
        limits = {name: one.metadata[name] for name in LIMITS if name in one.metadata}
        each = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(LIMITS[name][0](part, limit) for part in each for name, limit in limits.items()):
            expected = " and ".join(LIMITS[name][1].format(limit) for name, limit in limits.items())
            wrong.append(f"{one.name}: expected {expected}, found {value}")
    return wrong


def _at_odds(s: TrainSettings) -> list[str]:
    """Say which values cannot be together, or are beyond what the code can do."""
    batch, rounds, easy_hard = s.effective_batch_size, s.num_training_rounds, s.step_easy_rounds + s.step_hard_rounds
    replica, rate = s.per_replica_batch_size, s.base_learning_rate
    learned, scan_s = s.num_samples_beta_vae * s.train_val_split, s.time_bins * s.time_resolution
    files, widths, tags = " ".join(s.train_files), WINDOW_BINNING * SHRINK[1], ", ".join(TAGS)
    known = {tag: tag is None or re.fullmatch("|".join(TAGS.values()), tag) for tag in (s.load_tag, s.save_tag)}
    checks = (
        (isinstance(s.rf_max_features, str) or 0 < s.rf_max_features <= 1,
         f"rf_max_features: expected sqrt, log2, or a share above 0 and up to 1, found {s.rf_max_features}"),
        (s.rf_n_jobs, "rf_n_jobs: expected -1 for all cores, or how many, found 0"),
        (s.num_observations == 6,
         f"num_observations: expected 6, as cadences are ABACAD, found {s.num_observations}"),
        (s.downsample_factor == WINDOW_BINNING,
         f"downsample_factor: expected {WINDOW_BINNING}, as a search bins windows, found {s.downsample_factor}"),
        (s.width_bin % widths == 0,
         f"width_bin: expected a multiple of {widths}, as the encoder shrinks windows, found {s.width_bin}"),
        (scan_s <= SCAN_STEP_S,
         f"time_bins x time_resolution: expected at most {SCAN_STEP_S:g} s, the scan step, found {scan_s:g}"),
        (any(all(file.endswith(kind) for file in s.train_files) for kind in (PLATES, CADENCES)),
         f"train_files: expected {PLATES[0]} alone or {', '.join(CADENCES)} alone, found {files}"),
        (batch % replica == 0,
         f"effective_batch_size: expected a multiple of per_replica_batch_size {replica}, found {batch}"),
        (batch <= learned,
         f"effective_batch_size: expected at most num_samples_beta_vae x train_val_split {learned:g}, found {batch}"),
        ((s.final_snr_range or 0) <= s.initial_snr_range,
         f"final_snr_range: expected at most initial_snr_range {s.initial_snr_range:g}, found {s.final_snr_range}"),
        (rounds or s.start, "num_training_rounds: expected at least 1, or start beside it, found 0"),
        (s.curriculum_schedule != "step" or easy_hard == rounds,
         f"step_easy_rounds + step_hard_rounds: expected num_training_rounds {rounds}, found {easy_hard}"),
        (s.min_learning_rate <= rate,
         f"min_learning_rate: expected at most base_learning_rate {rate:g}, found {s.min_learning_rate:g}"),
        (known[s.load_tag], f"load_tag: expected {tags}, found {s.load_tag}"),
        (known[s.save_tag], f"save_tag: expected {tags}, found {s.save_tag}"),
        (not Path(s.load_dir or "").is_absolute(), f"load_dir: expected a folder below model_path, found {s.load_dir}"),
        (not (s.start and s.load_tag), "start: expected either start or load_tag, found both"),
        (s.load_tag or s.start_round in {None, 1},
         f"start_round: expected load_tag beside it, found none for round {s.start_round}"),
        (not known[s.load_tag] or s.first_round <= rounds + 1,
         f"start_round: expected at most num_training_rounds + 1, {rounds + 1} (forests alone), found {s.first_round}"),
    )  # fmt: skip
    return [text for well, text in checks if not well]
