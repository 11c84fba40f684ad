"""A training on a disk that fills while a checkpoint is saved, then with more room: PLACE STUDENT INPUT KILOBYTES.

To be started in a mount namespace of its own (`unshare -m`), so that whatever happens no disk is left mounted. Prints as
JSON what either life said, and the losses of the second one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

place, student, data, kilobytes = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
place.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True)
command = [sys.executable, "-m", "tunesift", "tune", data, "-o", str(place / "tuned"), f"student.name={student}",
           "tuner.batch=4", "tuner.steps=6", "tuner.save_every=2", "tuner.learning_rate=3e-3", "--yes"]  # fmt: skip
lives = []
for _ in range(2):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    stage = place / "tuned.run/checkpoints/tune"
    lives.append({"code": done.returncode, "said": done.stderr, "there": sorted(p.name for p in stage.glob("*-*"))})
    subprocess.run(["mount", "-o", "remount,size=512m", str(place)], check=True)
whole = json.loads((place / "tuned/_COMPLETE.json").read_text()) if (place / "tuned").exists() else {"history": []}
print(json.dumps([*lives, whole["history"]]))
subprocess.run(["umount", str(place)], check=True)
