"""Does a folder lie on a file system that other machines share, where locks and mapped memory promise less?"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/mounts")
_SHARED = re.compile(r"nfs\d*|cifs|smb\d*|smbfs|lustre|gpfs|beegfs|ceph|afs|9p|glusterfs|fuse\..+")


def shared_kind(folder: Path) -> str:
    """The kind of the network file system that holds a folder; empty on a local one, or where nobody can tell."""
    try:
        lines = os.fsdecode(MOUNTS.read_bytes()).split("\n")[:-1]  # the kernel writes any other end of a line as it is
    except OSError:
        return ""
    real, best, kind = os.path.realpath(folder), "", ""
    for line in lines:
        _, place, found, *_ = line.split(" ")
        place = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), place)
        if len(place) >= len(best) and (real == place or real.startswith(place.rstrip("/") + "/")):
            best, kind = place, found  # of two on one place the later one lies on top
    return kind if _SHARED.fullmatch(kind) else ""
