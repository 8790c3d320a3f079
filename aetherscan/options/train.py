"""Options of a training: every option of Aetherscan's `train` under its own name, and our additions.

Each option is declared once, in `TrainSettings`. `sentinel.config` derives the `train:` section of the configuration
from it and `sentinel.cli` the flags, so this module imports the standard library alone. All values are checked
together, and one error lists every mistake. A value that Aetherscan accepts and this code does not support is refused
with the reason.

The defaults train 0.8 million cadences: overnight on a laptop, at about 40 cadences/s, or in minutes on a GPU. Where a
default differs from Aetherscan's, a comment gives the reason.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from aetherscan.errors import OptionsError
from aetherscan.header import SCAN_STEP_S
from aetherscan.options.declare import MOST_THREADS, option, out_of_range

PLATES = (".npy",)
CADENCES = (".h5", ".hdf5", ".fil")
"""Suffixes of background files: plates (n, 6, 16, 4096), or observations that form cadences."""
TAGS = {"final_vX": r"final_v\d+", "round_XX": r"round_\d+", "YYYYMMDD_HHMMSS": r"\d{8}_\d{6}", "test_vX": r"test_v\d+"}
SHRINK = (16, 128)
"""Factors by which the encoder reduces rows and bins: four strides of 2, then bins are pooled by 8."""
WINDOW_BINNING = 8
SHAPE = frozenset({"vae_latent_dim", "vae_dense_layer_size", "vae_kernel_size", "width_bin", "time_bins"})
"""Options that give the weights of the encoder their shape: no checkpoint can be continued with others."""
OUTSIDE_ENCODER = frozenset({
    "rf_n_estimators", "rf_bootstrap", "rf_max_features", "rf_n_jobs", "rf_seed", "num_samples_rf", "forest_patches",
    "judge_patches", "num_training_rounds", "per_replica_batch_size", "per_replica_val_batch_size",
    "signal_injection_chunk_size", "processes", "max_retries", "retry_delay", "load_dir", "load_tag", "start_round",
    "save_tag", "start", "allow_changed",
})  # fmt: skip
"""Options that do not change what a round of the encoder learns: of the forests, the machine, and where to begin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """The options of a training.

    Raises:
        OptionsError: values are out of range or contradict each other; one line for each.
    """

    data_path: Path = option(Path("data"), "data folder (AETHERSCAN_DATA_PATH)", heading="folders")
    model_path: Path = option(Path("models"), "folder of releases and checkpoints (AETHERSCAN_MODEL_PATH)")
    output_path: Path = option(Path("var/training"), "folder of logs and reports (AETHERSCAN_OUTPUT_PATH)")

    vae_latent_dim: int = option(8, "number of latents of one observation", heading="encoder", least=1, most=1024)
    vae_dense_layer_size: int = option(
        512, "units of the dense layer between convolutions and latents", least=1, most=2**16
    )
    vae_kernel_size: tuple[int, int] = option(
        (3, 3), "size of every convolution kernel, rows and bins", least=1, most=64
    )
    vae_beta: float = option(1.5, "weight of the KL divergence relative to the reconstruction loss", least=0)
    vae_alpha: float = option(10.0, "weight of the loss that clusters ONs and OFFs", least=0)

    rf_n_estimators: int = option(100, "number of trees of a forest", heading="forests", least=1, most=100_000)
    rf_bootstrap: bool = option(default=True, text="fit each tree to a random sample of the examples")
    rf_max_features: float | Literal["sqrt", "log2"] | None = option(
        None, "features of a split: sqrt, log2 or a fraction (default: 0.5 for tracks, sqrt for windows)"
    )
    rf_n_jobs: int = option(-1, "cores that fit a forest; -1: all", least=-1, most=MOST_THREADS)
    rf_seed: int | None = option(None, "random seed of the forests (default: --seed)", least=0, most=2**32 - 1)

    num_observations: int = option(6, "observations of a cadence; 6, as cadences are ABACAD", heading="windows of band")
    width_bin: int = option(4096, "channels of a window", least=1, most=2**20)
    downsample_factor: int = option(WINDOW_BINNING, "channels averaged into one bin of a window")
    time_bins: int = option(16, "rows (spectra) of an observation", least=1, most=1024, multiple=SHRINK[0])
    freq_resolution: float = option(2.7939677238464355, "channel width, Hz", above=0)
    time_resolution: float = option(18.253611008, "integration time of a row, s", above=0)

    train_files: tuple[str, ...] = option(  # Aetherscan's three files are in no public archive
        (), "backgrounds, in data_path or data_path/training: .npy files of (n, 6, rows, channels), or .h5 and .fil"
        " files that form cadences (default: simulated skies)", heading="backgrounds",
    )  # fmt: skip
    num_target_backgrounds: int = option(1200, "background windows held in memory", least=1, most=10**7)  # 1.6 MB each
    background_load_chunk_size: int = option(300, "background windows read at once", least=1, most=10**6)  # 0.5 GB
    # More than Aetherscan's, as ours are smaller.
    max_chunks_per_file: int = option(4, "most chunks read from one file", least=1, most=10_000)

    # Aetherscan's 50 rounds of 100 epochs of 499,200 cadences take two days on five GPUs.
    num_training_rounds: int = option(
        10, "number of curriculum rounds; 0 with --start retrains only the forests", heading="rounds", least=0
    )
    epochs_per_round: int = option(10, "epochs of a round", least=1)
    num_samples_beta_vae: int = option(
        9600, "cadences generated for each round of the encoder", least=4, most=10**8, multiple=4
    )
    # Fewer may hold too few signals, and the training would end with that.
    num_samples_rf: int = option(19_200, "most examples that a forest is fitted to", least=200, most=10**8, multiple=4)
    train_val_split: float = option(0.8, "fraction of the cadences to train on; the rest validate", above=0, below=1)
    # Larger batches are no faster on a CPU, and the number of steps matters.
    per_replica_batch_size: int = option(32, "cadences per device and step", least=1, most=2**16)
    effective_batch_size: int = option(32, "cadences per optimizer step, all devices", least=1, most=2**20)
    per_replica_val_batch_size: int = option(64, "cadences per device and validation step", least=1, most=2**16)
    signal_injection_chunk_size: int = option(  # 25 MB
        512, "cadences in preparation at once", least=4, most=10**6, multiple=4
    )

    # SNR is the matched filter's in one observation. Aetherscan's is over six, of signals eight times as wide.
    snr_base: float = option(6.0, "SNR of the faintest signals", heading="curriculum", above=0)
    initial_snr_range: float = option(54.0, "SNR of the brightest signals of the first round, above snr_base", least=0)
    # Rounds with SNR 6-20 alone make the encoder forget bright signals: docs/performance.md has the figures.
    final_snr_range: float | None = option(
        None, "SNR of the brightest signals of the last round, above snr_base (default: initial_snr_range)", least=0
    )
    curriculum_schedule: Literal["linear", "exponential", "step"] = option(
        "exponential", "how the SNR range narrows: linear, exponential, step"
    )
    exponential_decay_rate: float = option(-3.0, "rate of the exponential schedule; lower narrows it sooner", below=0)
    step_easy_rounds: int = option(2, "rounds with the first SNR range, in the step schedule", least=0)
    step_hard_rounds: int = option(8, "rounds with the last SNR range, in the step schedule", least=0)

    base_learning_rate: float = option(1e-3, "learning rate at the start of a round", heading="learning rate", above=0)
    min_learning_rate: float = option(1e-6, "lowest learning rate", above=0)
    min_pct_improvement: float = option(
        1e-3, "least relative fall of the validation loss that counts", least=0, below=1
    )
    patience_threshold: int = option(3, "epochs without such a decrease before the learning rate is lowered", least=1)
    lr_reduction_factor: float = option(0.2, "fraction by which the learning rate is lowered", above=0, below=1)

    max_retries: int = option(3, "attempts after a failure", heading="failures and resuming", least=0)
    retry_delay: float = option(60.0, "seconds before each retry", least=0)
    load_dir: str | None = option(None, "folder of the checkpoint, below model_path")
    load_tag: str | None = option(None, f"checkpoint to resume from: {', '.join(TAGS)}")
    start_round: int | None = option(None, "first round to train (default: the one after the checkpoint's)", least=1)
    save_tag: str | None = option(None, f"name of the release: {', '.join(TAGS)} (default: the time)")

    seed: int = option(  # scikit-learn takes 32 bits
        1, "random seed of the training", heading="additions to Aetherscan's options", least=0, most=2**32 - 1
    )
    objective: Literal["sentinel", "seed"] = option(
        "sentinel", "loss of the encoder: sentinel, for lines as thin as real ones; seed, exactly Aetherscan's"
    )
    vae_gamma: float | None = option(
        None, "weight of reconstruction and KL divergence together (default: 0.02; 1 with --objective seed)", least=0
    )
    allow_changed: tuple[str, ...] = option(
        (), "options that may differ from those of the checkpoint although they change what is learned: NAME,..."
    )
    start: Path | None = option(None, "release folder whose encoder is trained further, from round 1")
    forest_patches: int = option(
        3000, "simulated patches of band whose tracks the forests are fitted to", least=1, most=10**6
    )
    # The second half, 32,000 windows of band, has three false alarms at a rate of one in ten thousand.
    judge_patches: int = option(
        4000, "further patches: half calibrate the forests, half measure them", least=2, most=10**6
    )
    processes: int = option(
        2, "threads that make batches, and processes that draw examples for forests", least=1, most=MOST_THREADS
    )
    fresh: bool = option(default=True, text="draw new examples for every epoch, not only for every round")
    mixed_precision: bool = option(default=False, text="compute in bfloat16 with float32 weights, if the device can")

    def __post_init__(self) -> None:
        """Check every option."""
        if mistakes := [*out_of_range(self), *_contradictions(self)]:
            raise OptionsError("\n".join(mistakes))

    @property
    def bins(self) -> int:
        """Number of bins of a snippet."""
        return self.width_bin // self.downsample_factor

    @property
    def backgrounds(self) -> Literal["simulated", "plates", "cadences"]:
        """Kind of background that signals are injected into."""
        if not self.train_files:
            return "simulated"
        return "plates" if self.train_files[0].endswith(PLATES) else "cadences"

    @property
    def first_round(self) -> int:
        """First round to train, counted from 1."""
        if self.start_round is not None:
            return self.start_round
        kind, _, number = (self.load_tag or "").partition("_")
        return int(number) + 1 if kind == "round" else 1

    @property
    def gamma(self) -> float:
        """Weight of reconstruction and KL divergence together."""
        usual = 1.0 if self.objective == "seed" else 0.02
        return usual if self.vae_gamma is None else self.vae_gamma

    @property
    def allowed(self) -> frozenset[str]:
        """Names of the options that may differ from the checkpoint's."""
        names = (name.strip() for word in self.allow_changed for name in word.split(","))
        return frozenset(name.removeprefix("--").replace("-", "_") for name in names if name)

    def of_encoder(self) -> dict[str, Any]:
        """Return the options that determine what the encoder learns; a resumed training has the same.

        The number of rounds is one of them only where the SNR of a round depends on it.
        """
        outside = OUTSIDE_ENCODER - ({"num_training_rounds"} if self.final_snr_range is not None else set())
        return {name: value for name, value in self.recorded().items() if name not in outside}

    def file_sizes(self) -> dict[str, int]:
        """Return the size of each of `train_files` in bytes; raises what `files` raises."""
        return {path.name: path.stat().st_size for path in self.files()}

    def tag(self) -> str:
        """Return the name of the release: `save_tag`, or the present time."""
        return self.save_tag or datetime.now(UTC).strftime("%Y%m%d_%H%M%S")

    def files(self) -> list[Path]:
        """Return the paths of `train_files`.

        Raises:
            OptionsError: files are missing; one line for each.
        """
        return find_files(self.data_path, "training", self.train_files)

    def snr(self, number: int) -> tuple[float, float]:
        """Return the lowest and the highest SNR of round `number`, from 1; a single round has the first range."""
        progress = (number - 1) / max(1, self.num_training_rounds - 1)
        rate = self.exponential_decay_rate
        remaining = {
            "linear": 1 - progress,
            "exponential": 1 - math.expm1(rate * progress) / math.expm1(rate),
            "step": float(number <= self.step_easy_rounds or self.num_training_rounds == 1),
        }
        first, last = self.initial_snr_range, self.final_snr_range
        if last is None:
            return self.snr_base, self.snr_base + first
        return self.snr_base, self.snr_base + last + remaining[self.curriculum_schedule] * (first - last)

    def recorded(self) -> dict[str, Any]:
        """Return the options for the card, without the folders of this machine."""
        options = {name: value for name, value in asdict(self).items() if not isinstance(value, Path)}
        names = [Path(name).name for name in self.train_files]
        start = self.start.name if self.start else None
        return options | {"train_files": names, "start": start, "vae_gamma": self.gamma}


def find_files(folder: Path, inner: str, names: Sequence[str]) -> list[Path]:
    """Return the paths of files in the working folder, in `folder`, or in `folder/inner` as Aetherscan has them.

    Raises:
        OptionsError: files are in none of these; one line for each.
    """
    folders = dict.fromkeys((Path(), folder, folder / inner))
    paths = {name: next((place / name for place in folders if (place / name).is_file()), None) for name in names}
    if missing := [name for name, path in paths.items() if path is None]:
        expected = f"expected a file in {', '.join(map(str, folders))}, found none"
        raise OptionsError("\n".join(f"{name}: {expected}" for name in missing))
    return [path for path in paths.values() if path]


def _contradictions(s: TrainSettings) -> list[str]:
    """Return a line for each value that contradicts another or is not supported."""
    batch, rounds, easy_hard = s.effective_batch_size, s.num_training_rounds, s.step_easy_rounds + s.step_hard_rounds
    replica, rate = s.per_replica_batch_size, s.base_learning_rate
    trained, scan_s = s.num_samples_beta_vae * s.train_val_split, s.time_bins * s.time_resolution
    files, widths, tags = " ".join(s.train_files), WINDOW_BINNING * SHRINK[1], ", ".join(TAGS)
    valid = {tag: tag is None or re.fullmatch("|".join(TAGS.values()), tag) for tag in (s.load_tag, s.save_tag)}
    unknown = s.allowed - {declared.name for declared in fields(s)}
    checks = (
        (not isinstance(s.rf_max_features, float | int) or 0 < s.rf_max_features <= 1,
         f"rf_max_features: expected sqrt, log2, or a fraction above 0 and at most 1, found {s.rf_max_features}"),
        (s.rf_n_jobs, "rf_n_jobs: expected -1 (all cores) or at least 1, found 0"),
        (s.num_observations == 6,
         f"num_observations: expected 6, as cadences are ABACAD, found {s.num_observations}"),
        (s.downsample_factor == WINDOW_BINNING,
         f"downsample_factor: expected {WINDOW_BINNING}, the binning of a search, found {s.downsample_factor}"),
        (s.width_bin % widths == 0,
         f"width_bin: expected a multiple of {widths}, the encoder's reduction, found {s.width_bin}"),
        (scan_s <= SCAN_STEP_S,
         f"time_bins x time_resolution: expected at most {SCAN_STEP_S:g} s, the scan step, found {scan_s:g}"),
        (any(all(file.endswith(kind) for file in s.train_files) for kind in (PLATES, CADENCES)),
         f"train_files: expected only {PLATES[0]} or only {', '.join(CADENCES)}, found {files}"),
        (replica < 1 or batch % replica == 0,
         f"effective_batch_size: expected a multiple of per_replica_batch_size {replica}, found {batch}"),
        (batch <= trained,
         f"effective_batch_size: expected at most num_samples_beta_vae x train_val_split {trained:g}, found {batch}"),
        ((s.final_snr_range or 0) <= s.initial_snr_range,
         f"final_snr_range: expected at most initial_snr_range {s.initial_snr_range:g}, found {s.final_snr_range}"),
        (rounds or s.start, "num_training_rounds: expected at least 1, or 0 with start, found 0 without start"),
        (s.curriculum_schedule != "step" or easy_hard == rounds,
         f"step_easy_rounds + step_hard_rounds: expected num_training_rounds {rounds}, found {easy_hard}"),
        (s.min_learning_rate <= rate,
         f"min_learning_rate: expected at most base_learning_rate {rate:g}, found {s.min_learning_rate:g}"),
        (valid[s.load_tag], f"load_tag: expected {tags}, found {s.load_tag}"),
        (valid[s.save_tag], f"save_tag: expected {tags}, found {s.save_tag}"),
        (not Path(s.load_dir or "").is_absolute(), f"load_dir: expected a folder below model_path, found {s.load_dir}"),
        (s.load_tag or s.load_dir is None, f"load_dir: expected load_tag with it, found load_dir {s.load_dir} alone"),
        (not unknown, f"allow_changed: expected names of options, found {', '.join(sorted(unknown))}"),
        (not (s.start and s.load_tag), "start: expected start or load_tag, found both"),
        (s.load_tag or s.start_round in {None, 1},
         f"start_round: expected load_tag with it, found start_round {s.start_round} alone"),
        (not valid[s.load_tag] or s.first_round <= rounds + 1,
         f"start_round: expected at most {rounds + 1}, which trains only the forests, found {s.first_round}"),
    )  # fmt: skip
    return [line for valid_option, line in checks if not valid_option]
