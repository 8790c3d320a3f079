"""Every kind of bad input ends in one line that says what was expected and what was found, and in its exit status."""

import fcntl
import gzip
import os
import re
import struct
from dataclasses import replace

import h5py
import numpy as np
import pytest
from bad_files import BAD
from factories import make_detector, make_header, replace_data, set_attribute, set_keyword, write_observation
from watched import headers

from aetherscan.io import sigproc
from sentinel import cli
from sentinel.commands import search as searching

SMALL = {"nchans": 256, "nfpc": 256}
NONE_SEARCHED, USAGE = 1, 2


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Return the files of a good cadence."""
    folder = tmp_path_factory.mktemp("good")
    for i, header in enumerate(headers(**SMALL)):
        write_observation(folder / f"{i}.h5", header)
    return [folder / f"{i}.h5" for i in range(6)]


@pytest.fixture
def says(tmp_path, monkeypatch, capsys):
    """Run `search` with a detector that needs no release; return exit status and output, without a traceback."""
    monkeypatch.setenv("SENTINEL_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("")
    monkeypatch.setattr(searching, "detector_of", lambda *_: make_detector())

    def run(*arguments):
        try:
            code = cli.main(["search", "--output", str(tmp_path / "found"), *map(str, arguments)])
        except SystemExit as ended:
            code = ended.code
        printed = "".join(capsys.readouterr())
        assert "Traceback" not in printed
        assert all(line.isprintable() for line in printed.splitlines())
        return code, printed

    return run


def attribute(name, value):
    """Return a function that writes an .h5 file with this value of a header attribute, without it if None."""

    def make(path):
        write_observation(path, make_header(**SMALL))
        set_attribute(path, name, value)

    return make


def content(raw):
    return lambda path: path.write_bytes(raw)


def keyword(name, code, value):
    """Return a function that writes a .fil file with this value of a header keyword."""

    def make(path):
        write_observation(path, make_header(**SMALL))
        set_keyword(path, name, code, value)

    return make


def table(*frequencies):
    """Return a function that writes a .fil file with a table of frequencies in MHz."""
    entries = b"".join(struct.pack("<i8sd", 8, b"fchannel", frequency) for frequency in frequencies)
    start, end = struct.pack("<i15s", 15, b"FREQUENCY_START"), struct.pack("<i10s", 10, b"HEADER_END")
    return content(sigproc.MAGIC + start + entries + end + bytes(999))


def gone_external(path):
    """Write an .h5 whose power is in another file that is not there."""
    write_observation(path, make_header(**SMALL))
    replace_data(path, shape=(16, 1, 256), dtype="f4", external=[("power.raw", 0, 16 * 256 * 4)])
    path.with_name("power.raw").unlink(missing_ok=True)


FILES = {
    "nothing is written yet": [
        ("a.h5", lambda path: path.touch(), "expected a header, found b''"),
        ("a.fil", content(bytes(9999)), "nothing is written there yet"),
        ("b.h5", content(b"\x89HDF"), "nothing is written there yet"),
        ("b.fil", BAD["half a header.fil"][0], "expected HEADER_END, found the end of the file"),
    ],
    "another kind of file": [
        ("a.h5", content(b"a list of sources\n" * 99), "expected the first bytes of HDF5 or SIGPROC, found b'a list"),
        ("b.h5", content(gzip.compress(bytes(99))), r"expected the first bytes of HDF5 or SIGPROC, found b.\\x1f\\x8b"),
        ("a.fil", content(b"\x89PNG\r\n\x1a\n" + bytes(99)), "expected the first bytes of HDF5 or SIGPROC"),
        ("c.h5", lambda path: h5py.File(path, "w").close(), "expected a dataset 'data', found nothing"),
    ],
    "no file at all": [
        ("a.h5", lambda _: None, "expected to read it, found .*No such file"),
        ("a.fil", os.mkfifo, "expected a file, found p"),
        ("b.h5", lambda path: path.symlink_to("nowhere.h5"), "expected to read it, found .*No such file"),
    ],
    "cut short": [
        ("a.h5", BAD["truncated.h5"][0], "expected to read it, found .*truncated file"),
        ("a.fil", BAD["truncated.fil"][0], "expected whole rows of 4096 bytes, found"),
        ("b.h5", BAD["unwritten chunks.h5"][0], "expected 64 chunks for .* found 32"),
        ("c.h5", gone_external, "expected 16384 bytes of power in .*power.raw, found 0"),
    ],
    "damaged power": [
        ("a.h5", BAD["damaged chunk.h5"][0], "expected 1024 bytes when decoded, found"),
        ("b.h5", BAD["all zero.h5"][0], "expected power in the last two rows, found zeros"),
        ("a.fil", BAD["zero tail.fil"][0], "expected power in the last two rows, found zeros"),
    ],
    "a header value is missing": [
        (f"{name}.h5", attribute(name, None), f"{name}: expected a value, found none among")
        for name in ("foff", "tstart", "source_name", "telescope_id")
    ],
    "a header value of another type": [
        ("a.h5", attribute("tsamp", "long"), "tsamp: expected float, found 'long'"),
        ("b.h5", attribute("nchans", np.inf), "nchans: expected int, found"),
        ("c.h5", attribute("tstart", h5py.Empty("f8")), "tstart: expected float, found"),
        ("d.h5", attribute("fch1", []), "fch1: expected float, found"),
    ],
    "an impossible header value": [
        ("a.h5", attribute("foff", 0.0), "foff: expected a channel width in MHz, not 0, found 0.0"),
        ("b.h5", attribute("tstart", 2_459_000.5), "tstart: expected an MJD in 40000-100000, found 2459000.5"),
        ("a.fil", keyword("tsamp", "<d", -18.0), "tsamp: expected seconds above 0, found -18.0"),
        ("b.fil", keyword("nbits", "<i", 5), "nbits: expected 1, 2, 4, 8, 16 or 32 bits, found 5"),
        ("c.fil", keyword("nifs", "<i", 9), "nifs: expected 1 to 4 polarizations, found 9"),
    ],
    "frequencies in another unit": [
        ("a.h5", attribute("fch1", 1.42), "fch1: expected a frequency in MHz, 5 to 2000000, found 1.42"),
        ("a.fil", keyword("fch1", "<d", 1.42e9), "fch1: expected a frequency in MHz, 5 to 2000000, found 1420000000.0"),
        ("b.h5", attribute("fch1", np.nan), "fch1: expected a frequency in MHz, 5 to 2000000, found nan"),
    ],
    "another shape": [
        ("a.h5", attribute("nchans", 255), r"expected \(16, 1, 256\) as data has, found \(16, 1, 255\)"),
        (
            "b.h5",
            BAD["flat data.h5"][0],
            r"data: expected numbers \(time, .*\), found float32 \(16, 1024\)",
        ),
        ("c.h5", BAD["complex data.h5"][0], "data: expected numbers .* found complex64"),
        ("a.fil", BAD["three rows.fil"][0], "expected at least 4 rows, found 3"),
    ],
    "a filter that is not installed": [
        ("a.h5", BAD["foreign filter.h5"][0], "expected a filter that is installed, found filter 32767"),
    ],
    "a header that is not SIGPROC": [
        ("a.fil", BAD["unknown keyword.fil"][0], "expected a SIGPROC keyword, found 'warp'"),
        ("b.fil", BAD["endless header.fil"][0], "expected text within the header's 65536 bytes, found a length of -1"),
        (
            "c.fil",
            table(1400.0, 1399.0, 1390.0),
            "fchannel: expected frequencies with one spacing, found 3 from 1390",
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [pytest.param(*sibling, id=f"{kind}: {sibling[0]}") for kind, siblings in FILES.items() for sibling in siblings],
)
def test_a_bad_file_is_named_with_what_was_expected_and_found(says, scans, tmp_path, name, make, message):
    (tmp_path / "files").mkdir()
    make(bad := tmp_path / "files" / name)
    code, printed = says(*scans[:2], bad, *scans[3:])
    assert code == NONE_SEARCHED
    lines = [line for line in printed.splitlines() if line.startswith(f"not searched: {bad}: ")]
    assert len(lines) == 1
    assert re.search(message, lines[0])
    assert "expected" in lines[0]
    assert "found" in lines[0]


def written(folder, changed):
    """Write six small files from changed headers; return their paths."""
    paths = []
    for i, header in enumerate(changed(headers(**SMALL))):
        paths.append(folder / f"{i}.h5")
        write_observation(paths[-1], header)
    return paths


def every(**changes):
    return lambda scans: [replace(scan, **changes) for scan in scans]


CADENCES = {
    "scans are missing": [
        (lambda scans: scans[:5], "HIP99427: waiting for position 5 of ABACAD: the OFF after HIP99427 at MJD 59103"),
        (lambda scans: scans[:2] + scans[3:], "HIP99427: waiting for position 2 of ABACAD: the ON after HIP1"),
        (lambda scans: scans[:1], "HIP99427: waiting for position 1, 2, 3, 4, 5 of ABACAD"),
    ],
    "scans that are no cadence": [
        (every(src_dej=10.0), "HIP99427: waiting for position .*place: .* does not point where an OFF would"),
        (
            lambda scans: [replace(s, tstart=s.tstart + 0.02 * i) for i, s in enumerate(scans)],
            "waiting for .*spacing: ",
        ),
        (lambda scans: [replace(scans[0], ntime=99), *scans[1:]], "unequal length: .* a ratio of less than 0.5"),
        (every(source_name="3C286", src_dej=10.0), "3C286: waiting for"),
    ],
    "scans of different bands": [
        (lambda scans: [*scans[:5], replace(scans[5], fch1=1500.0)], "HIP99427: waiting for position 5 of ABACAD"),
        (lambda scans: [*scans[:5], replace(scans[5], tsamp=1.0)], "HIP99427: waiting for position 5 of ABACAD"),
    ],
    "scans at the same time": [
        (
            lambda scans: [replace(scan, src_raj=0.0, src_dej=0.0, tstart=59103.0) for scan in scans[:2]],
            "set aside: 16 rows; .*expected scans at different times, found one tstart for HIP",
        ),
        (
            lambda scans: [replace(scan, tstart=scans[i // 2].tstart) for i, scan in enumerate(scans[:3])],
            "beam not known: expected files of 2 simultaneous places, or ibeam, found 1",
        ),
        (lambda scans: [*scans[:5], replace(scans[5], tstart=scans[4].tstart)], "beam not known: expected files of 2"),
    ],
    "channels that are too wide": [
        (every(foff=-2.86e-3), "channels of 2860 Hz, expected at most max_channel_hz, 100 .--all-products searches it"),
        (every(foff=0.3), "channels of 300000 Hz, expected at most max_channel_hz, 100"),
    ],
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        pytest.param(*sibling, id=f"{kind} {i}")
        for kind, siblings in CADENCES.items()
        for i, sibling in enumerate(siblings)
    ],
)
def test_scans_that_are_not_searched_are_named_with_the_rule_that_holds_them_back(says, tmp_path, changed, message):
    code, printed = says(*written(tmp_path, changed))
    assert code == NONE_SEARCHED
    assert any(re.match(f"not searched: .*{message}", line) for line in printed.splitlines())


def catalogue(text):
    """Return a function that writes a catalogue and returns what names it."""

    def make(folder):
        (folder / "list.csv").write_bytes(text)
        return [folder / "list.csv"]

    return make


NAMED = {
    "names without files": [
        (lambda folder: [folder / "*.h5"], "expected files that match this pattern, found none"),
        (lambda folder: [folder], "expected .h5 or .hdf5 or .hdf or .fil files in this folder, found none"),
        (lambda folder: [folder / "a.h5"], "a.h5: expected to read it, found .*No such file"),
    ],
    "catalogues without files": [
        (catalogue(b""), "list.csv: expected rows that name .h5 or .* files, found none"),
        (catalogue(b"target,path\nHIP1,a.txt\n"), "list.csv line 2: expected a .h5, .* file, found 'HIP1, a.txt'"),
        (catalogue(b"path\ngone.h5\n"), "gone.h5: expected to read it, found .*No such file"),
    ],
}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(*sibling, id=f"{kind} {i}")
        for kind, siblings in NAMED.items()
        for i, sibling in enumerate(siblings)
    ],
)
def test_names_that_give_no_file_are_named(says, tmp_path, make, message):
    (folder := tmp_path / "night").mkdir()
    code, printed = says(*make(folder))
    assert code == NONE_SEARCHED
    assert any(re.match(f"not searched: .*{message}", line) for line in printed.splitlines())


OPTIONS = {
    "a pattern that is no cadence": [
        (["--cadence", "AAAAAA"], "--cadence: expected .* at least two ONs and one OFF, found 'AAAAAA'"),
        (["--cadence", "AB1CAD"], "--cadence: expected a letter for each scan, .* found 'AB1CAD'"),
        (["--cadence", "ABACA"], "--cadence: "),
    ],
    "beams that are no numbers": [
        (["--beams", "0"], "--beams: expected the number of the ON beam and those of OFF beams, 0,1,2, found '0'"),
        (["--beams", "on,off"], "--beams: expected the number of the ON beam .* found 'on,off'"),
        (["--beams", "1,1"], "--beams: off_beams: expected at most 11 different beams besides 1, found"),
        (["--beams", "0,1", "--cadence", "ABACAD"], "--beams: expected .* found --cadence"),
    ],
    "numbers out of range": [
        (["--pol", "5"], "--pol: "),
        (["--threads", "0"], "--threads: "),
        (["--trace", "nan"], "--trace: "),
        (["--threshold", "2"], "threshold: expected at least 0 and at most 1, found 2.0"),
    ],
    "files and stamps together": [
        (["--test-files", "a.npy"], "search: expected FILE ... or --test-files FILE ..., and not both"),
    ],
}


@pytest.mark.parametrize(
    ("options", "message"),
    [pytest.param(*sibling, id=" ".join(sibling[0])) for siblings in OPTIONS.values() for sibling in siblings],
)
def test_options_that_cannot_be_followed_are_refused_before_any_file_is_read(says, scans, options, message):
    code, printed = says(*scans, *options)
    assert code == USAGE
    assert re.search(message, printed.splitlines()[-1])


@pytest.mark.parametrize("polarization", [2, 3, 4])
def test_a_polarization_that_no_file_has_is_named_for_every_file(says, scans, polarization):
    code, printed = says(*scans, "--pol", polarization)
    assert code == NONE_SEARCHED
    expected = f"polarization: expected 1 to 1 as nifs says, found {polarization}"
    assert [f"not searched: {path}: {expected}" in printed for path in scans] == [True] * 6


def test_a_file_that_is_still_written_is_named(says, scans, tmp_path):
    write_observation(path := tmp_path / "a.h5", make_header(**SMALL))
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, printed = says(*scans[:2], path, *scans[3:])
    assert code == NONE_SEARCHED
    assert f"not searched: {path}: expected a finished file, found one that is open for writing" in printed
