"""Is the control signal of MCTune learned? A small student tuned on real records with controls, beside the untuned.

    python benchmarks/controlling.py --data DATA [--records 500] [--epochs 6] [--student FOLDER]

Takes records of Alpaca, of every second one by chance only the first sentence, so that no instruction tells how long a
response is; has `mctune` write controls and hold rows out, tunes the student by `tune`, and has `mctune-evaluate` ask
both models for the same held-out prompts. Their numbers lie a standard deviation (sigma 1) from what the response of
the row measures, two prompts for each row. The result is the rank correlation of what was asked with what came, with
its interval, for both; and of the rows whose two prompts ask for different lengths, how many were answered longer where
more was asked.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
from measuring import here, told

import tunesift
from tunesift import recipe_for, run_recipe

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def cut_by_chance(data: Path, count: int) -> list[dict[str, str]]:
    """Records of a prompt of at most 20 words and a response of several sentences, 30 to 80 words, of which the first
    has 3 to 16; every second one by chance keeps that sentence alone, so that no instruction tells how long it is."""
    rows = json.loads((data / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    chance, found = random.Random(0), []
    for row in rows:
        said = row["output"]
        sentences = SENTENCE_END.split(said)
        fits = said.isascii() and "\n" not in said and 30 <= len(said.split()) <= 80 and len(sentences) > 1
        asked = max(len(row["instruction"].split()), len(row["input"].split()))
        if fits and asked <= 20 and 3 <= len(sentences[0].split()) <= 16:
            found.append({**row, "output": chance.choice((said, sentences[0]))})
    return found[:count]


def done(method: str, input: Path, output: Path, *settings: str) -> Path:
    """Run a method by its recipe; its run folder."""
    return run_recipe(recipe_for(method, input, output, settings)).folder


def table(run: Path, name: str) -> list[dict[str, object]]:
    """Rows of one of a run's tables."""
    return pq.read_table(run / "tables" / f"{name}.parquet").to_pylist()  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds alpaca/alpaca_sample.json")
    parser.add_argument("--records", type=int, default=500)
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--epochs", type=float, default=6)
    parser.add_argument("--learning-rate", type=float, default=7e-4)
    parser.add_argument("--student", default=str(Path(tunesift.__file__).parent / "assets" / "scorer"))
    parser.add_argument("--smoke", action="store_true", help="a few records and one epoch, to see that it runs")
    given = parser.parse_args()
    if given.smoke:
        given.records, given.held_out, given.epochs = 24, 4, 1.0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        place = Path(home)
        (place / "in.json").write_text(json.dumps(cut_by_chance(given.data, given.records)))
        done("mctune", place / "in.json", place / "train.jsonl", f"held_out={given.held_out}", "draws=2", "sigma=1.0")
        tuned = done("tune", place / "train.jsonl", place / "tuned", f"student.name={given.student}", "tuner.batch=8",
                     f"tuner.epochs={given.epochs}", f"tuner.learning_rate={given.learning_rate}",
                     "tuner.gradient_checkpointing=false")  # fmt: skip
        result = {**here(), "records": given.records, "training": table(tuned, "training")[0],
                  "settings": {"epochs": given.epochs, "learning_rate": given.learning_rate},
                  "student": Path(given.student).name,
                  **compared(place, [("untuned", given.student), ("tuned", str(place / "tuned"))])}  # fmt: skip
    result["minutes"] = round((time.monotonic() - began) / 60, 1)
    told(result, "controlling", given.smoke)


def compared(place: Path, models: Sequence[tuple[str, str]]) -> dict[str, object]:
    """The evaluation's tables of each model."""
    found: dict[str, object] = {}
    for name, folder in models:
        run = done("mctune-evaluate", place / "train.test.jsonl", place / f"{name}.jsonl", f"model.name={folder}",
                   "max_tokens=120")  # fmt: skip
        found[name] = {path.stem: table(run, path.stem) for path in sorted((run / "tables").glob("*.parquet"))
                       if not path.stem.startswith("asked")}  # fmt: skip
        found[name]["same instruction"] = within_rows(place / f"{name}.jsonl")  # type: ignore[index]
    return found


def within_rows(answers: Path) -> dict[str, int]:
    """Of two prompts of one row that ask for different numbers of words: is the answer to the larger one longer?"""
    rows: dict[str, list[tuple[float, int]]] = {}
    for line in answers.read_text("utf-8").splitlines():
        row = json.loads(line)
        asked = row["mctune"]["values"].get("t_word")
        if asked is not None:
            rows.setdefault(row["mctune"]["row"], []).append((asked, len(row["messages"][-1]["content"].split())))
    pairs = [sorted(two) for two in rows.values() if len(two) == 2 and two[0][0] != two[1][0]]
    return {
        "rows": len(pairs), "longer": sum(more > less for (_, less), (_, more) in pairs),
        "shorter": sum(more < less for (_, less), (_, more) in pairs),
    }  # fmt: skip


if __name__ == "__main__":
    main()
