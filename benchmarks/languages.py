"""How often is a text's language told, and told wrongly; how often is a revision by a human taken for a translation?

    python benchmarks/languages.py --data FOLDER

FOLDER holds `multilingual/questions_XX100.jsonl` (a hundred questions in each of ten languages) and
`expert_revisions/coachlm_expert_revisions.json` (1,150 records before and after a human's revision, one language).
Writes `benchmarks/results/languages.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tunesift.language import languages, switch

RESULTS = Path(__file__).parent / "results" / "languages.json"


def main() -> None:
    """Count and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    by_language = {}
    for path in sorted((data / "multilingual").glob("questions_*100.jsonl")):
        name = path.stem.removeprefix("questions_").removesuffix("100")
        texts = [longest(json.loads(line)) for line in path.read_text("utf-8").splitlines()]
        found = [languages(text) for text in texts]
        by_language[name] = {"texts": len(texts), "told": sum(map(bool, found)),
                             "wrong": sum(bool(f) and name not in f for f in found)}  # fmt: skip
    rows = json.loads((data / "expert_revisions" / "coachlm_expert_revisions.json").read_text("utf-8"))
    taken = [s for row in rows if (s := switch(row["Raw Response"], row["Revised Response"]))]
    known = sum(bool(languages(row["Raw Response"]) and languages(row["Revised Response"])) for row in rows)
    totals = {key: sum(row[key] for row in by_language.values()) for key in ("texts", "told", "wrong")}
    revisions = {"pairs": len(rows), "both_known": known, "taken_for_a_translation": len(taken)}
    result = {"command": "python benchmarks/languages.py --data DATA", "questions": totals, "by_language": by_language,
              "revisions": revisions}  # fmt: skip
    json.dump(result, sys.stdout, indent=1)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


def longest(row: dict[str, object]) -> str:
    """The longest text of a row: its question."""
    return max((v for v in row.values() if isinstance(v, str)), key=len)


if __name__ == "__main__":
    main()
