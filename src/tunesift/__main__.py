"""Where the program starts: it hears Ctrl-C before it has loaded anything that takes time."""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _leave)
    from tunesift.cli import main as run

    run()


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped; start the same command again to go on\n")
    os._exit(128 + number)  # nothing has begun: a run hears signals itself


if __name__ == "__main__":
    main()
