"""How long does the core take to install, and each extra on top of it, and how much room do they need?

    python benchmarks/installing.py [--constraints constraints.txt] [--smoke]

Each is installed into a virtual environment of its own, from the package index and into no cache, so the network is
part of the time. Which build of torch is installed decides the size of `local`: see the note in the results. Also
measures, by the median of five starts, how long `import tunesift` and the commands that load no model take in the
core's environment. Writes `benchmarks/results/installing.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("", "local", "cluster", "images", "embed", "train", "pos")
STARTS = {
    "python -c pass": ["-c", "pass"],
    "import tunesift": ["-c", "import tunesift"],
    "tunesift --help": ["-m", "tunesift", "--help"],
    "tunesift list": ["-m", "tunesift", "list"],
}


def installed(home: Path, extra: str, constraints: Path) -> tuple[Path, dict[str, float]]:
    """An environment's Python, and what making it took: seconds, and megabytes of packages without pip."""
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
    python = home / "bin" / "python"
    before = megabytes(home)
    package = f"{ROOT}[{extra}]" if extra else str(ROOT)
    began = time.perf_counter()
    command = [str(python), "-m", "pip", "install", "-q", "--no-cache-dir", "-c", str(constraints), package]
    subprocess.run(command, check=True)
    seconds = time.perf_counter() - began
    return python, {"seconds": round(seconds, 1), "megabytes": round(megabytes(home) - before, 1)}


def megabytes(folder: Path) -> float:
    """Size of the files of a folder, without compiled Python."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc") / 1e6


def started(python: Path, words: list[str], repeat: int) -> float:
    """Median seconds of a process, after one that warms the disk's cache."""
    seconds = []
    for turn in range(repeat + 1):
        began = time.perf_counter()
        subprocess.run([str(python), *words], check=True, capture_output=True)
        if turn:
            seconds.append(time.perf_counter() - began)
    return round(statistics.median(seconds), 3)


def main() -> None:
    """The core, then every extra."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--constraints", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--smoke", action="store_true", help="only the starts, in this environment, into no file")
    options = parser.parse_args()
    found: dict[str, dict[str, float]] = {}
    if options.smoke:
        starts = {name: started(Path(sys.executable), words, 1) for name, words in STARTS.items()}
        print(json.dumps({"seconds of a start": starts}))
        return
    with tempfile.TemporaryDirectory() as name:
        for extra in EXTRAS:
            python, found[extra or "core"] = installed(Path(name) / (extra or "core"), extra, options.constraints)
            if not extra:
                starts = {start: started(python, words, 5) for start, words in STARTS.items()}
    said = {
        "found": found,
        "seconds of a start": starts,
        "note": f"torch {version('torch')}; each extra's figures include the core",
        "python": platform.python_version(),
        "processors": os.cpu_count(),
    }
    print(json.dumps(said, indent=1))
    (ROOT / "benchmarks" / "results" / "installing.json").write_text(json.dumps(said, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
