"""Does the cost of scoring grow as the data do? Seconds and memory of whole runs, by records and by their length.

    python benchmarks/growth.py [--rows 1000 10000 100000] [--lengths 64 256 1024] [--data FILE] [--smoke]

`select` by IFD, from the input to the report, each in a process of its own, by a tiny random Llama, so that what is not
the model's arithmetic shows. Records are those of the file again and again, each made another by a number; for the
lengths, 200 records whose responses have so many words. Seconds, memory of the process that is no file's, and both for
each row beyond the smallest. Writes `benchmarks/results/growth.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from measuring import HERE, bytes_a_row, child, here, ran, told
from scoring import made

from tunesift import Record, read_dataset, recipe_for

LONG = 200
"""Records of each length."""


def written(records: Sequence[Record], rows: int, words: int | None) -> Iterator[str]:
    """So many rows; with `words`, responses of that length."""
    for n in range(rows):
        record = records[n % len(records)]
        said = record.response if words is None else " ".join((record.response.split() or ["so"]) * words)
        said = said if words is None else " ".join(said.split()[:words])
        yield json.dumps({"instruction": f"{record.prompt[-1].text} ({n})", "output": f"{said} {n}"}) + "\n"


def run(data: Path, rows: int, words: int | None) -> dict[str, Any]:
    """One selection, in this process."""
    records = [r for r in read_dataset(data) if r.response.strip()]
    with tempfile.TemporaryDirectory() as home:
        model, source = Path(home) / "model", Path(home) / "in.jsonl"
        model.mkdir()
        made(model, "smoke", records, "float32")
        source.write_text("".join(written(records, rows, words)))
        settings = [f"scorer.student.name={model}", "scorer.template=bare"]
        summary, cost = ran(recipe_for("select", source, Path(home) / "out.jsonl", settings))
        return {"rows": rows, "words": words, "worked": summary.worked, **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parent / "demo" / "demo.jsonl")
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--smoke", action="store_true", help="a few rows, into no file")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        rows, words = options.child
        print(json.dumps(run(options.data, rows, words or None)))
        return
    many, lengths = ([20, 40], [8, 16]) if options.smoke else (options.rows, options.lengths)
    count = 20 if options.smoke else LONG
    asked = [*((rows, 0) for rows in many), *((count, words) for words in lengths)]
    found = [child(__file__, "--data", str(options.data), "--child", str(rows), str(words)) for rows, words in asked]
    by_rows, by_words = found[: len(many)], found[len(many) :]
    least, most = by_rows[0], by_rows[-1]
    result = here() | {
        "by_rows": by_rows, "by_words": by_words, "bytes_a_row": bytes_a_row(least, most),
        "milliseconds_a_row": round(1e3 * (most["seconds"] - least["seconds"]) / (most["rows"] - least["rows"]), 3),
    }  # fmt: skip
    told(result, "growth", options.smoke)


if __name__ == "__main__":
    sys.exit(main())
