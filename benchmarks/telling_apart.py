"""How often do the rules that tell rows of GenQA apart hold back what is none of their business?

    python benchmarks/telling_apart.py --data FOLDER

FOLDER holds `alpaca/alpaca_sample.json`, `eval_sets/*.jsonl`, `math/gsm8k_train.jsonl`, `code/code_alpaca_2k.json` and
`multilingual/questions_XX100.jsonl`. Writes `benchmarks/results/telling_apart.json`, and prints examples besides.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tunesift.methods.genqa_checks import Written, listed, name_leak
from tunesift.methods.genqa_likeness import posed
from tunesift.methods.genqa_prompts import SplitName
from tunesift.methods.genqa_sifting import Sieve, grams, grams_of
from tunesift.records import Message
from tunesift.words import spelled, units

RESULTS = Path(__file__).parent / "results" / "telling_apart.json"
ROWS = 10_000
NEAR = 0.8
SHOWN = 12
"""Examples of one kind that are written down."""
NAMES = ("量子力学", "海洋生物学", "宋代经济史", "城市规划", "有机化学", "机器学习", "语音学", "刑法", "气象学")
"""Subjects that the Chinese questions are looked through for, word by word."""


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    data: Path = parser.parse_args().data
    rows = [*map(_row, _json(data / "alpaca" / "alpaca_sample.json")[:ROWS])]
    code = [*map(_row, _json(data / "code" / "code_alpaca_2k.json"))]
    problems = [_problem(r) for r in _lines(data / "math" / "gsm8k_train.jsonl")]
    result: dict[str, Any] = {
        "command": "python benchmarks/telling_apart.py --data DATA",
        "units_for_a_word_of_english": _units(data / "multilingual"),
        "alpaca_instructions": len(rows),
        "contaminated": _contaminated(rows, sorted((data / "eval_sets").glob("*.jsonl"))),
        "questions_found_in_themselves": _found(data / "multilingual"),
        "near": {
            "academic": _near(rows, "academic"), "task": _near(rows, "task"), "dialog": _near(rows, "dialog"),
            "mmlu": _near(rows, "mmlu"), "code": _near(code, "code"), "math": _near(problems, "math"),
        },
        "problems_with_other_numbers": _renumbered(problems),
        "instructions_with_options": sum(bool(posed(r.messages[0].text).options) for r in rows),
        "instructions_with_a_list": sum(len(listed(r.messages[0].text)) > 1 for r in rows),
        "chinese_questions_with_a_word_of_a_name": _named(data / "multilingual" / "questions_zh100.jsonl"),
    }  # fmt: skip
    json.dump(result, sys.stdout, indent=1, ensure_ascii=False)
    result["contaminated"] = result["contaminated"]["found"]
    result["near"] = {
        split: {k: v for k, v in found.items() if k != "examples"} for split, found in result["near"].items()
    }
    RESULTS.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _contaminated(rows: list[Written], sets: list[Path]) -> dict[str, object]:
    """Instructions that share runs of words, or a question alone, with an evaluation set."""
    known = grams_of(sets)
    found = [r.messages[0].text for r in rows if not grams(r.messages[0].text).isdisjoint(known)]
    return {"found": len(found), "examples": [text[:200] for text in found[:SHOWN]]}


def _found(folder: Path) -> dict[str, list[int]]:
    """Of a hundred questions, how many are found that are a row's question, and that stand between other words."""
    found = {}
    for path in sorted(folder.glob("questions_*100.jsonl")):
        known, texts = grams_of((path,)), [_longest(row) for row in _lines(path)]
        both = ([not grams(form.format(text)).isdisjoint(known) for text in texts] for form in ("{}", "1 {} 2"))
        found[path.stem.removeprefix("questions_").removesuffix("100")] = [*map(sum, both)]
    return found


def _near(rows: list[Written], split: SplitName) -> dict[str, object]:
    """Rows that are held back as if they were of a split, by reason, with some of them and whom they are like."""
    sieve, kept = Sieve(NEAR, frozenset()), list[Written]()
    counts, examples = dict[str, int](), list[list[str]]()
    for row in rows:
        why = sieve.holds_back(row, split)
        if why is None:
            kept.append(row)
            continue
        by = why.detail.rpartition("by its ")[2] if why.reason == "near_duplicate" else why.detail.partition(" row ")[0]
        counts[by] = counts.get(by, 0) + 1
        other = kept[int(why.detail.partition(" row ")[2].split()[0].strip(",")) - 1]
        if why.reason == "near_duplicate" and "by its row" not in why.detail:
            examples.append([why.detail, row.messages[0].text[:200], other.messages[0].text[:200]])
    return {"rows": len(rows), "held_back": counts, "examples": examples[:SHOWN]}


def _renumbered(rows: list[Written]) -> dict[str, int]:
    """Of problems with every number changed, those that are found to be like one of the problems, and in which way."""
    sieve, found = Sieve(NEAR, frozenset()), dict[str, int]()
    chance = random.Random(0)
    for row in rows:
        sieve.holds_back(row, "math")
    for row in rows:
        asked = re.sub(r"\d+", lambda m: str(int(m[0]) + chance.randint(1, 97)), row.messages[0].text)
        if asked == row.messages[0].text:
            found["without a number"] = found.get("without a number", 0) + 1
            continue
        solved = re.sub(r"\d+", lambda m: str(int(m[0]) + chance.randint(1, 97)), row.messages[1].text)
        why = sieve.holds_back(Written((Message("user", asked), Message("assistant", solved))), "math")
        by = "not found" if why is None else why.detail.rpartition("by its ")[2].partition(" row ")[0]
        found[by] = found.get(by, 0) + 1
    return found


def _named(path: Path) -> dict[str, int]:
    texts = [_longest(row) for row in _lines(path)]
    return {name: sum(bool(name_leak(text, name, "generator-nested")) for text in texts) for name in NAMES}


def _units(folder: Path) -> dict[str, float]:
    counts = {
        code: sum(len(units(spelled(_longest(row)))) for row in _lines(folder / f"questions_{code}100.jsonl"))
        for code in ("en", "zh", "ja", "ko", "de")
    }
    return {code: round(count / counts["en"], 3) for code, count in counts.items()}


def _row(row: dict[str, Any]) -> Written:
    asked = f"{row['instruction']}\n{row['input']}".strip()
    return Written((Message("user", asked), Message("assistant", row["output"])))


def _problem(row: dict[str, Any]) -> Written:
    return Written((Message("user", row["question"]), Message("assistant", row["answer"])))


def _longest(row: dict[str, Any]) -> str:
    return max((v for v in row.values() if isinstance(v, str)), key=len)


def _json(path: Path) -> list[dict[str, Any]]:
    return list(json.loads(path.read_text("utf-8")))


def _lines(path: Path) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


if __name__ == "__main__":
    main()
