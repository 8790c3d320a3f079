"""Rules by which observations are grouped: `sentinel.config` makes the `cadence:` and `beams:` sections from them."""

from dataclasses import dataclass

from aetherscan.errors import OptionsError
from aetherscan.options.declare import option, out_of_range

MOST_OFF_BEAMS = 11
"""With the ON, as many observations as the longest cadence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BeamRoles:
    """Which beam of a multibeam receiver is the ON of every scan, and which other beams are its simultaneous OFFs.

    Raises:
        OptionsError: every value that is out of range, one per line.
    """

    on_beam: int | None = option(None, "number (`ibeam`) of the beam on the target", least=0)
    off_beams: tuple[int, ...] = option((), "numbers of the simultaneous beams off the target", least=0)

    def __post_init__(self) -> None:
        """Report every invalid value at once."""
        errors, on, off = out_of_range(self), self.on_beam, self.off_beams
        if (on is None) != (not off):
            errors.append(f"off_beams: expected beams both ON and OFF, or neither, found {on} and {list(off)}")
        if len({*off, on}) <= len(off) or len(off) > MOST_OFF_BEAMS:
            errors.append(
                f"off_beams: expected at most {MOST_OFF_BEAMS} different beams besides {on}, found {list(off)}"
            )
        if errors:
            raise OptionsError("\n".join(errors))


@dataclass(frozen=True, slots=True, kw_only=True)
class CadenceRules:
    """What makes scans a cadence. The defaults recover observers' own lists: see `docs/cadences.md`.

    Raises:
        OptionsError: every value that is out of range, one per line.
    """

    scans: int = option(6, "scans of a cadence that alternate between target and other places", least=3, most=12)
    max_step_s: float = option(600.0, "longest time between the starts of consecutive scans, s", above=0)
    max_rest_s: float = option(5400.0, "longest rest inside a cadence, s", least=0)
    min_length_ratio: float = option(0.5, "length of the shortest scan over that of the longest", least=0, below=1)
    place_arcmin: float = option(1.0, "scans closer than this point at the same place, arcmin", above=0)
    max_motion_arcmin_h: float = option(60.0, "fastest steady motion of a target between its ONs, arcmin/h", least=0)
    beams: BeamRoles = BeamRoles()

    def __post_init__(self) -> None:
        """Report every invalid value at once."""
        if errors := out_of_range(self):
            raise OptionsError("\n".join(errors))
