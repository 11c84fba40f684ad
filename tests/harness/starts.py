"""Many processes open one run at the same moment: FOLDER COUNT. One JSON line of what became of each, by its process.

They are forked from one that has imported everything, so that they come within milliseconds of one another. The winner
holds the folder until all the others have ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from tunesift import Local, Run, TunesiftError

folder, count = Path(sys.argv[1]), int(sys.argv[2])
told, tell = os.pipe()
start, go = os.pipe()
release, let_go = os.pipe()


def open_run() -> None:
    """What each of them does, from the sign on."""
    os.close(go)
    os.close(let_go)
    os.read(start, 1)  # ends when the parent closes its side
    began, said, code = time.monotonic(), "", 0
    try:
        with Run(folder, Local()):
            os.write(tell, line(began, said, code))
            os.read(release, 1)
    except TunesiftError as error:
        said, code = str(error), error.exit_code
        os.write(tell, line(began, said, code))
    finally:
        os._exit(code)


def line(began: float, said: str, code: int) -> bytes:
    """One write, less than what a pipe takes whole."""
    return (json.dumps({"pid": os.getpid(), "code": code, "said": said, "s": time.monotonic() - began}) + "\n").encode()


children = []
for _ in range(count):
    if not (child := os.fork()):
        open_run()
    children.append(child)
os.close(go)
lines = b""
signal.alarm(60)
while lines.count(b"\n") < count:
    lines += os.read(told, 65536)
os.close(let_go)
codes = {pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children}
rows = [json.loads(row) for row in lines.splitlines()]
print(json.dumps([row | {"exit": codes[row["pid"]]} for row in rows]))
