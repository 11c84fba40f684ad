"""How does a file come to lie on a disk, for its owner only, and to be there after a loss of power?"""

from __future__ import annotations

import errno
import os
from pathlib import Path

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk answers, or one of which we may have no more."""


def create(path: Path) -> int:
    """A new file that only its owner may read, as a handle; a link in its place is refused."""
    path.unlink(missing_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a loss of power; a failure is final for this file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
