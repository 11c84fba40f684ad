"""Assemble the demo data set: sound records with planted faults, and a key that names every fault.

Reads the records in sound_a.jsonl, sound_b.jsonl and sound_c.jsonl beside this script and
writes demo.jsonl (the data set) and key.json (what was planted where). The same sources always give the
same bytes. Run it as `python demo/make_demo.py`.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SOURCES = ("sound_a.jsonl", "sound_b.jsonl", "sound_c.jsonl")
FIELDS = ("id", "instruction", "input", "output", "category")
SEED = 20240607

MISMATCHED = 36
EMPTY = 10
COPIED = 10
NEAR_DUPLICATE = 12
MIN_WORDS = 15  # shorter responses take no part in mismatches and near-duplicates
DONOR_TOLERANCE = 0.15  # a planted response is about as long as the one it replaces
CONTROL_TOLERANCE = 0.10  # a control's response is about as long as the planted one

BLANKS = ("", " ", "\n", "", "   ", "\t", "", "\n\n", " \n ", "")

REFUSALS = (
    "I'm sorry, but I can't help with that request.",
    "As an AI language model, I am not able to provide this kind of content.",
    "Unfortunately, I must decline to answer, as it would go against my guidelines.",
    "I apologize, but I cannot fulfil this request. If you have another question, feel free to ask!",
    "Sorry, I am unable to assist you here. Please consult a qualified professional instead.",
    "I don't feel comfortable writing about this topic, so I will have to pass on it.",
    "My policies do not allow me to respond to this. Is there anything else I can do for you?",
    "It would not be appropriate for me to give an answer to this. I hope you understand.",
    "I won't be able to do that. I was designed to be safe and harmless, and your message may be misused.",
    "Regrettably, this is something I can't discuss, because I have no access to personal opinions or "
    "external information.",
)

# Pairs of a pattern and its replacement that leave the meaning of a response as it was.
SWAPS = (
    (r"\bbecause\b(?! of)", "since"),
    (r"\busually\b", "normally"),
    (r"\boften\b", "frequently"),
    (r"\binstead of\b", "rather than"),
    (r"\bneeds (?=an?\b|the\b|no\b)", "requires "),
    (r"\bit is\b", "it's"),
    (r"\bdo not\b", "don't"),
    (r"\bcannot\b", "can't"),
    (r"\bwhereas\b", "while"),
    (r"\balmost\b", "nearly"),
    (r"\bfor example\b", "for instance"),
    (r"\broughly (?=\d)", "about "),
    (r"\babout (?=\d)", "around "),
    (r"\bchoose\b", "pick"),
)
SURFACE_EDITS: tuple[Callable[[str], str], ...] = (
    lambda text: text[0].lower() + text[1:],
    lambda text: text.rstrip(".?!"),
    lambda text: text.replace(",", "", 1).replace("?", " ?"),
)

Record = dict[str, str]


@dataclass(eq=False)
class Item:
    """One line of the demo file: its record, what is wrong with it, and the items it refers to."""

    record: Record
    fault: str = "sound"
    other: Item | None = None  # the donor of a mismatch, or the original of a near-duplicate
    control: Item | None = None
    what: str = ""  # how a broken line is broken

    @property
    def id(self) -> str:
        return self.record["id"]

    @property
    def words(self) -> int:
        return len(self.record["output"].split())


def read_items() -> list[Item]:
    """Read all sources, or stop with one sentence if one of them is missing or unsound."""
    items = []
    for name in SOURCES:
        if not (HERE / name).exists():
            sys.exit(f"{HERE / name} is missing, and the demo data set cannot be made without it.")
        for number, line in enumerate((HERE / name).read_bytes().splitlines(), 1):
            record = json.loads(line)
            if set(record) != set(FIELDS) or not all(isinstance(value, str) for value in record.values()):
                sys.exit(f"{name}, line {number}: a record needs the text fields {', '.join(FIELDS)}.")
            items.append(Item({field: record[field] for field in FIELDS}))
    repeated = [id_ for id_, times in Counter(item.id for item in items).items() if times > 1]
    if repeated:
        sys.exit(f"The sources use the id {repeated[0]} more than once.")
    return items


def take(pool: list[Item], rng: random.Random) -> Item:
    """Remove a random item from the pool and return it."""
    return pool.pop(rng.randrange(len(pool)))


def plant_outputs(pool: list[Item], rng: random.Random) -> None:
    """Plant the empty, copied and refusing responses."""
    for output in BLANKS[:EMPTY]:
        item = take(pool, rng)
        item.fault, item.record["output"] = "empty", output
    for _ in range(COPIED):
        item = take(pool, rng)
        item.fault, item.record["output"] = "copied", item.record["instruction"]
    for output in REFUSALS:
        item = take(pool, rng)
        item.fault, item.record["output"] = "refusal", output


def plant_broken(pool: list[Item], rng: random.Random) -> None:
    """Mark one item for each way in which a line can be broken."""
    for what in BREAKERS:
        item = take(pool, rng)
        item.fault, item.what = "broken", what


def plant_near_duplicates(pool: list[Item], rng: random.Random) -> list[Item]:
    """Return slightly edited copies of some items; the originals leave the pool and stay sound."""
    copies: list[Item] = []
    for original in rng.sample(pool, len(pool)):
        output = original.record["output"]
        swaps = [swap for swap in SWAPS if re.search(swap[0], output)]
        if len(copies) == NEAR_DUPLICATE or original.words < MIN_WORDS or not swaps:
            continue
        for pattern, replacement in rng.sample(swaps, min(2, len(swaps))):
            output = re.sub(pattern, replacement, output, count=1)
        instruction = rng.choice(SURFACE_EDITS)(original.record["instruction"])
        record = {**original.record, "instruction": instruction, "output": output}
        copies.append(Item(record, "near-duplicate", other=original))
        pool.remove(original)
    return copies


def near(words: int, target: int, tolerance: float) -> bool:
    """Say whether a word count lies within the tolerance, a share of the target."""
    return words >= MIN_WORDS and abs(words - target) <= tolerance * target


def find_donor(item: Item, pool: list[Item], rng: random.Random) -> tuple[Item, Item] | None:
    """Find a donor of another category for the item, and a control for the donor's response."""
    donors = [
        donor
        for donor in pool
        if donor.record["category"] != item.record["category"] and near(donor.words, item.words, DONOR_TOLERANCE)
    ]
    for donor in rng.sample(donors, len(donors)):
        controls = [control for control in pool if near(control.words, donor.words, CONTROL_TOLERANCE)]
        controls = [control for control in controls if control not in (item, donor)]
        if controls:
            return donor, rng.choice(controls)
    return None


def plant_mismatched(pool: list[Item], rng: random.Random) -> None:
    """Give items the response of an item of another category; donors and controls stay sound."""
    planted = 0
    for item in rng.sample(pool, len(pool)):
        if planted == MISMATCHED or item not in pool or item.words < MIN_WORDS:
            continue
        found = find_donor(item, pool, rng)
        if found is None:
            continue
        item.fault, (item.other, item.control) = "mismatched", found
        for used in (item, *found):
            pool.remove(used)
        item.record["output"] = item.other.record["output"]
        planted += 1


def dumped(record: Any) -> str:
    """Return the record as one line of JSON."""
    return json.dumps(record, ensure_ascii=False)


def inserted(record: Record, text: str) -> str:
    """Return the record's line with raw text put in front of its output."""
    return dumped(record).replace('"output": "', f'"output": "{text}', 1)


BREAKERS: dict[str, Callable[[Record], bytes]] = {
    "cut-off JSON": lambda record: dumped(record)[: len(dumped(record)) * 2 // 3].encode(),
    "trailing garbage after the object": lambda record: (dumped(record) + '}, "next').encode(),
    "output missing": lambda record: dumped({k: v for k, v in record.items() if k != "output"}).encode(),
    "output is a number": lambda record: dumped({**record, "output": 42}).encode(),
    "instruction is null": lambda record: dumped({**record, "instruction": None}).encode(),
    "invalid UTF-8 byte": lambda record: inserted(record, "\0").encode().replace(b"\0", b"\xff"),
    "lone surrogate escape in output": lambda record: inserted(record, r"\ud800 ").encode(),
    "a JSON list, not an object": lambda record: dumped(list(record.values())).encode(),
}


def to_line(item: Item) -> bytes:
    """Return the item's line in the demo file."""
    return BREAKERS[item.what](item.record) if item.fault == "broken" else dumped(item.record).encode()


def make_key(items: list[Item]) -> dict[str, Any]:
    """Describe the finished items: the ids of the sound records, and every planted fault."""
    chosen = {fault: [item for item in items if item.fault == fault] for fault in {i.fault for i in items}}
    mismatched = [
        {"id": item.id, "answer_of": item.other.id, "control": item.control.id}
        for item in chosen["mismatched"]
        if item.other and item.control
    ]
    duplicates = [{"id": item.id, "of": item.other.id} for item in chosen["near-duplicate"] if item.other]
    broken = [{"line": n, "what": i.what} for n, i in enumerate(items, 1) if i.fault == "broken"]
    return {
        "description": "Key to demo.jsonl: 'sound' lists the unchanged records (the donors and controls of "
        "mismatches and the originals of near-duplicates among them), 'planted' names every fault by the "
        "id of its record, or by its line, counted from 1, where the line is broken.",
        "seed": SEED,
        "sound": [item.id for item in chosen["sound"]],
        "planted": {
            "mismatched": mismatched,
            **{fault: [item.id for item in chosen[fault]] for fault in ("empty", "copied", "refusal")},
            "near-duplicate": duplicates,
            "broken": broken,
        },
    }


def main() -> None:
    """Write demo.jsonl and key.json beside this script and print how many records of each kind they hold."""
    rng = random.Random(SEED)
    items = read_items()
    pool = list(items)
    plant_outputs(pool, rng)
    plant_broken(pool, rng)
    items += plant_near_duplicates(pool, rng)
    plant_mismatched(pool, rng)
    rng.shuffle(items)
    for number, item in enumerate(items, 1):
        item.record["id"] = f"d{number:04d}"
    key = make_key(items)
    (HERE / "demo.jsonl").write_bytes(b"".join(to_line(item) + b"\n" for item in items))
    (HERE / "key.json").write_bytes((json.dumps(key, indent=2) + "\n").encode())
    print(f"demo.jsonl: {len(items)} lines")
    print(f"  sound: {len(key['sound'])}")
    for fault, planted in key["planted"].items():
        print(f"  {fault}: {len(planted)}")


if __name__ == "__main__":
    main()
