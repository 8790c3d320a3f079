"""What kind of file system a path lies on: inotify and SQLite both fail silently on the network's."""

from pathlib import Path

NETWORK = ("nfs", "lustre", "beegfs", "gluster", "ceph", "cifs", "smb", "9p", "afs", "gpfs", "fuse.")


def file_system(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the kind of file system that holds `path` (ext4, nfs4, fuse.glusterfs ...), or `unknown` off Linux."""
    try:
        lines = mountinfo.read_text().splitlines()
    except OSError:
        return "unknown"
    where = path.absolute().resolve()
    found, kind = -1, "unknown"
    for line in lines:
        mount, _, rest = line.partition(" - ")
        point = Path(mount.split()[4].replace("\\040", " "))
        if where.is_relative_to(point) and len(point.parts) >= found:  # a later mount covers an earlier one
            found, kind = len(point.parts), rest.split()[0]
    return kind


def is_network(kind: str) -> bool:
    """Return whether files there can be written by another host, unseen by this one's kernel."""
    return kind.startswith(NETWORK)
