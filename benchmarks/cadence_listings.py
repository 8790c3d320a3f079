"""Group the files of observers' own lists with `find_cadences`, and compare the cadences with those of the lists.

Run from the repository root: `python benchmarks/cadence_listings.py`. The lists hold names only, so each header is
built from the file's name and the observatory's data products; coordinates are unknown. Properties that no name holds
are the same for all files: every spliced file of the first list has the same band, whatever its receiver was.
"""

import csv
import gzip
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.cadence.grouping import Cadence, Grouping, find_cadences
from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.options.cadence import CadenceRules

LISTINGS = Path(__file__).resolve().parents[1] / "tests" / "data" / "listings"
ALIAS = re.compile(r"GBT_(?P<day>\d+)_(?P<second>\d+)_(?P<source>.+)_fine\.h5$")
NODE = re.compile(
    r"(?:(?:spliced_)?(?P<nodes>blc[\do]+)_)?guppi_(?P<day>\d+)_(?P<second>\d+)_(?P<source>.+)_\d{4}"
    r"\.(?P<reduced_by>rawspec|gpuspec)\.(?:8\.)?0000\.fil$"
)
PRODUCTS = {  # foff (MHz), tsamp (s), fine channels per coarse channel
    "rawspec": (-2.7939677238464355e-06, 18.253611008, 1_048_576),
    "gpuspec": (-2.835503418452676e-06, 17.986224, 1_033_216),
}
COARSE_CHANS, NODE_MHZ, TOP_MHZ = 64, 187.5, 11_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list of cadences by observers, and the headers of its files."""

    headers: tuple[Header, ...]
    listed: dict[tuple[int, ...], str]  # members in time order: the target's name


def spliced() -> Listing:
    """Return the list of spliced cadences: six rows each, the target first."""
    places: dict[str, int] = {}
    cadences: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in _rows("gbt_spliced_cadences.csv.gz"):
        cadences[row["cadence"], row["target"]].append(places.setdefault(row["path"], len(places)))
    headers = tuple(_header(ALIAS.search(path), "rawspec", node=0, nodes=5) for path in places)
    return Listing(headers=headers, listed={tuple(six): target for (_, target), six in cadences.items()})


def nodes() -> Listing:
    """Return the list of node files, divided into cadences.

    A cadence is the files of one target of interest, one bank (`BLPnn` in the path; a spliced file's node names), one
    reduction program, with less than an hour from start to start and a known band. There are 926.
    """
    headers: list[Header] = []
    pointings: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in _rows("gbt_node_files.csv.gz"):
        if row["band"] == "IGNORE":
            continue
        match = NODE.search(row["path"])
        bank = re.search(r"/BLP(\d)(\d)/", row["path"])
        node, count = (8 * int(bank[1]) + int(bank[2]), 1) if bank else (0, len(match["nodes"]) // 2 - 1)
        pointings[row["toi"], bank[0] if bank else match["nodes"], match["reduced_by"]].append(len(headers))
        headers.append(_header(match, match["reduced_by"], node=node, nodes=count))
    sessions = [
        (tuple(session), key[0]) for key, members in pointings.items() for session in _sessions(members, headers)
    ]
    return Listing(headers=tuple(headers), listed=dict(sessions))


def compare(listing: Listing) -> tuple[Counter[str], Counter[str], Grouping]:
    """Count the listed cadences by outcome, and the cadences that are in no list by kind."""
    grouping = find_cadences(listing.headers)
    formed = {cadence.members: cadence for cadence in grouping.cadences}
    outcome = Counter(_outcome(six, formed.get(six), target, listing.headers) for six, target in listing.listed.items())
    extra = Counter(
        f"{cadence.pattern}, not in the list" for cadence in grouping.cadences if cadence.members not in listing.listed
    )
    return outcome, extra, grouping


def _outcome(six: tuple[int, ...], cadence: Cadence | None, target: str, headers: tuple[Header, ...]) -> str:
    if cadence is not None:
        return "recovered" if (cadence.target, cadence.on) == (target, ON_POSITIONS) else "recovered with other roles"
    if len(six) < 6:
        return "a file is not in the list"
    steps = [(headers[b].tstart - headers[a].tstart) * SECONDS_PER_DAY for a, b in pairwise(six)]
    if steps[-1] > 6 * 3600:
        return "sixth file from another session"
    return "sixth file after a pause" if steps[-1] > CadenceRules().max_step_s else "rest of more than an hour inside"


def _rows(name: str) -> Iterable[dict[str, str]]:
    with gzip.open(LISTINGS / name, "rt", newline="") as listing:
        yield from csv.DictReader(listing)


def _sessions(members: list[int], headers: list[Header]) -> Iterable[list[int]]:
    members = sorted(members, key=lambda i: headers[i].tstart)
    cuts = [k for k, (a, b) in enumerate(pairwise(members), 1) if headers[b].tstart - headers[a].tstart > 1 / 24]
    return [members[a:b] for a, b in pairwise([0, *cuts, len(members)])]


def _header(name: re.Match[str] | None, product: str, *, node: int, nodes: int) -> Header:
    foff, tsamp, nfpc = PRODUCTS[product]
    return Header(
        telescope_id=6,
        machine_id=20,
        source_name=name["source"],
        src_raj=0.0,
        src_dej=0.0,
        tstart=int(name["day"]) + int(name["second"]) / SECONDS_PER_DAY,
        tsamp=tsamp,
        fch1=TOP_MHZ - node * NODE_MHZ,
        foff=foff,
        nchans=nodes * COARSE_CHANS * nfpc,
        nifs=1,
        ntime=16,
        nbits=32,
        nfpc=nfpc,
    )


def main() -> None:
    for title, listing in (("spliced", spliced()), ("node", nodes())):
        started = time.perf_counter()
        outcome, extra, grouping = compare(listing)
        seconds = time.perf_counter() - started
        total = outcome.total()
        print(f"{title} cadences as observers listed them: {total}, {len(listing.headers)} files, {seconds:.1f} s")
        for kind, count in [*outcome.most_common(), *extra.most_common()]:
            print(f"  {count:6d}  {kind}")
        print(f"  {len(grouping.ungrouped):6d}  groups of files in no cadence")


if __name__ == "__main__":
    main()
