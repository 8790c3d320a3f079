"""Find the type of the file system of a path and whether it is mounted, and open regular files only.

inotify and SQLite fail silently on network file systems. Opening a FIFO waits for a writer, and reading a device may
never end.
"""

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

NETWORK = ("nfs", "lustre", "beegfs", "gluster", "ceph", "cifs", "smb", "9p", "afs", "gpfs", "fuse.")

FSTAB = Path("/etc/fstab")


def file_system(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that holds `path` (ext4, nfs4, fuse.glusterfs), or `unknown` off Linux."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return "unknown"
    absolute = path.absolute().resolve()
    depth, kind = -1, "unknown"
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = Path(mount.split()[4].replace("\\040", " "))
        if absolute.is_relative_to(point) and len(point.parts) >= depth:  # a later mount covers an earlier one
            depth, kind = len(point.parts), rest.split()[0]
    return kind


def mount_point(path: Path) -> Path:
    """Return the mount point that holds `path`."""
    resolved = path.absolute().resolve()
    return next(parent for parent in (resolved, *resolved.parents) if os.path.ismount(parent))


def missing_mount(path: Path, known: Iterable[Path] | None = None) -> str:
    """Return a line if the disk that holds `path` is not mounted, or an empty string.

    A folder at the mount point of such a disk looks empty, and what is written there is hidden by the next mount.

    Args:
        path: of a file or folder, which may be absent.
        known: mount points of its disk (default: those that /etc/fstab lists).
    """
    mount = mount_point(path)
    points = _listed_mounts(path) if known is None else known
    missing = [point for point in points if point != mount and point.is_relative_to(mount)]
    return f"expected a disk mounted at {max(missing, key=lambda at: len(at.parts))}, found none" if missing else ""


def _listed_mounts(path: Path) -> Iterator[Path]:
    """Yield the mount points in /etc/fstab that hold `path`. Others are not looked up: their disks may hang."""
    try:
        lines = FSTAB.read_text(errors="replace").splitlines()
    except OSError:
        return
    places = (path.absolute(), path.absolute().resolve())
    for fields in map(str.split, lines):
        if len(fields) > 1 and not fields[0].startswith("#") and fields[1].startswith("/"):
            point = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1]))
            if any(place.is_relative_to(point) for place in places):
                yield point.resolve()


def is_network(kind: str) -> bool:
    """Return whether another host can write files of this file system type without inotify events here."""
    return kind.startswith(NETWORK)


KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a regular file",
}
PARTS, PART_BYTES = 16, 65_536
"""Parts of a file that its digest covers, evenly spread, and the length of each."""


def kind_of(path: Path) -> str:
    """Return what a path is, in words; links are followed."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "a special file")
    except OSError as error:
        return f"a link that leads nowhere ({os.strerror(error.errno or errno.ENOENT)})"


@contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open a regular file for reading, without waiting for a writer; yield its descriptor.

    Raises:
        OSError: it is another kind of file, or cannot be opened.
    """
    refused = OSError(errno.EINVAL, f"expected a regular file, found {kind_of(path)}", str(path))
    if not stat.S_ISREG(path.stat().st_mode):
        raise refused
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # it was replaced meanwhile
            raise refused
        yield descriptor
    finally:
        os.close(descriptor)


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Args:
        path: of the file.
        max_bytes: length of the longest content that is read.

    Raises:
        OSError: it is longer, is no regular file, or cannot be read.
    """
    with open_regular(path) as descriptor:
        content = bytearray()
        while part := os.read(descriptor, max_bytes + 1 - len(content)):
            content += part
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"expected at most {max_bytes} bytes, found more", str(path))
    return bytes(content)


def content_digest(path: Path, size: int) -> str:
    """Return 19 hexadecimal digits of the size of a file and of parts of its content, among them both ends."""
    digest = hashlib.sha256(str(size).encode())
    last = max(0, size - PART_BYTES)
    with open_regular(path) as descriptor:
        for start in sorted({last * part // (PARTS - 1) for part in range(PARTS)}):
            digest.update(os.pread(descriptor, PART_BYTES, start))
    return digest.hexdigest()[:19]
