"""Find the type of the file system of a path. inotify and SQLite fail silently on network file systems."""

from pathlib import Path

NETWORK = ("nfs", "lustre", "beegfs", "gluster", "ceph", "cifs", "smb", "9p", "afs", "gpfs", "fuse.")


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


def is_network(kind: str) -> bool:
    """Return whether another host can write files of this file system type without inotify events here."""
    return kind.startswith(NETWORK)
