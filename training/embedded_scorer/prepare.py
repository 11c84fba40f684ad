"""Make the training streams of the embedded scorer: tokenizer, text, dialogues and tasks cut from text.

    python prepare.py --data ../../../shared/data --out build

Reads the plain English corpus and three instruction sets whose licences permit it (Dolly, OASST1, GSM8K); writes
`build/tokenizer/` and one flat uint16 stream per source and split. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import lzma
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, END, PAD = "<|bos|>", "<|end|>", "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
VOCABULARY = 6144
HELD_OUT = 0.01
"""Fraction of the documents of each source that no step trains on."""

Turns = list[tuple[str, str]]


def read_documents(folder: Path) -> list[str]:
    files = sorted((folder / "text_corpus").glob("*.txt.xz"))
    return [d for f in files for d in lzma.open(f, "rt", encoding="utf-8").read().split("\n\n\n") if d.strip()]


def read_dialogues(folder: Path) -> Iterator[Turns]:
    for row in json.loads((folder / "dolly" / "dolly_3k.json").read_text("utf-8")):
        ask = "\n\n".join(part for part in (row["instruction"], row["input"]) if part.strip())
        yield [("user", ask), ("assistant", row["output"])]
    for line in (folder / "math" / "gsm8k_train.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        worked = re.sub(r"<<.*?>>", "", row["answer"]).replace("####", "The answer is")
        yield [("user", row["question"]), ("assistant", worked)]
    for row in json.loads((folder / "oasst" / "oasst_en_dialogue_pairs.json").read_text("utf-8")):
        said = re.split(r"^(Human|Assistant): ?", row["prompt"], flags=re.M)[1:]
        roles = {"Human": "user", "Assistant": "assistant"}
        past = [(roles[who], text.strip()) for who, text in zip(said[::2], said[1::2], strict=True)]
        past = [turn for turn in past if turn[1]]
        for answer in (row["chosen"], row["rejected"]):
            yield [*past, ("assistant", answer)]


def sentences(paragraph: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?]) +", paragraph.replace("\n", " ").strip()) if s]


class Tasks:
    """Turn a paragraph into an instruction whose answer can only be predicted by reading the instruction."""

    def __init__(self, frequency: Counter[str], rng: random.Random) -> None:
        self.frequency, self.rng = frequency, rng
        self.makers: list[tuple[Callable[[str], Turns | None], int]] = [
            (self.keywords, 5), (self.question, 5), (self.extract, 3), (self.carry_on, 3), (self.copy, 2),
            (self.transform, 2), (self.arithmetic, 1), (self.pick_words, 1),
        ]  # fmt: skip

    def make(self, paragraph: str) -> Turns | None:
        makers, weights = zip(*self.makers, strict=True)
        return self.rng.choices(makers, weights)[0](paragraph)

    def rare(self, text: str, count: int) -> list[str]:
        words = list(dict.fromkeys(re.findall(r"[A-Za-z][a-z]{3,}", text)))
        known = [w for w in words if self.frequency[w.lower()] > 3]
        return sorted(known, key=lambda w: self.frequency[w.lower()])[:count]

    def say(self, ways: list[str], **values: str) -> str:
        return self.rng.choice(ways).format(**values)

    def keywords(self, paragraph: str) -> Turns | None:
        part = sentences(paragraph)
        text = " ".join(part[: self.rng.randint(1, 5)])
        words = self.rare(text, self.rng.randint(1, 5))
        if not words:
            return None
        self.rng.shuffle(words)
        ways = ["Write a text about {w}.", "Describe {w}.", "Tell me about {w}.", "Write a paragraph with: {w}",
                "Explain {w} to me.", "What can you say about {w}?", "Use these words in a text: {w}"]  # fmt: skip
        return [("user", self.say(ways, w=", ".join(words))), ("assistant", text)]

    def question(self, paragraph: str) -> Turns | None:
        part = sentences(paragraph)
        if len(part) < 3:
            return None
        answer = self.rng.choice(part)
        words = self.rare(answer, 2)
        if not words:
            return None
        ways = ["What does the text say about {w}?", "Answer from the text: what about {w}?",
                "Find the sentence about {w}.", "According to the passage, what is said of {w}?"]  # fmt: skip
        return [("user", self.say(ways, w=" and ".join(words)) + "\n\n" + paragraph), ("assistant", answer)]

    def extract(self, paragraph: str) -> Turns | None:
        part = sentences(paragraph)
        if len(part) < 2:
            return None
        ways, answer = self.rng.choice(
            [
                (["Give the first sentence.", "What is the main point?", "Summarize the text."], part[0]),
                (["Give the last sentence.", "How does the text end?"], part[-1]),
                (["Put every sentence on its own line.", "List the sentences."], "\n".join(f"- {s}" for s in part)),
                (["Reverse the order of the sentences."], " ".join(reversed(part))),
            ]
        )
        return [("user", self.say(ways) + "\n\n" + paragraph), ("assistant", answer)]

    def carry_on(self, paragraph: str) -> Turns | None:
        part = sentences(paragraph)
        if len(part) < 2:
            return None
        cut = self.rng.randint(1, len(part) - 1)
        ways = ["Continue the text.", "Go on:", "What comes next?", "Complete this passage."]
        return [("user", self.say(ways) + "\n\n" + " ".join(part[:cut])), ("assistant", " ".join(part[cut:]))]

    def copy(self, paragraph: str) -> Turns | None:
        text = " ".join(sentences(paragraph)[: self.rng.randint(1, 4)])
        ways = ["Repeat the text.", "Copy this:", "Say this again, word for word.", "Quote the text below."]
        return [("user", self.say(ways) + "\n\n" + text), ("assistant", text)]

    def transform(self, paragraph: str) -> Turns | None:
        text = self.rng.choice(sentences(paragraph))
        old = self.rng.choice(re.findall(r"[A-Za-z]+", text) or [""])
        new = self.rng.choice(["river", "Maria", "seven", "letter", "quickly", "garden"])
        ways, answer = self.rng.choice(
            [
                (["Write it in capital letters.", "Make it upper case."], text.upper()),
                (["Write it in lower case.", "Remove the capital letters."], text.lower()),
                ([f'Replace "{old}" by "{new}".'], re.sub(rf"\b{re.escape(old)}\b", new, text)),
                (["Write one word per line.", "Split it into words."], "\n".join(text.split())),
            ]
        )
        return [("user", self.rng.choice(ways) + "\n\n" + text), ("assistant", answer)]

    def arithmetic(self, paragraph: str) -> Turns | None:
        a, b = self.rng.randint(2, 99), self.rng.randint(2, 99)
        sign, result = self.rng.choice([("+", a + b), ("-", a - b), ("*", a * b)])
        ways = ["What is {a} {s} {b}?", "Calculate {a} {s} {b}.", "{a} {s} {b} ="]
        ask = self.say(ways, a=str(a), b=str(b), s=sign)
        return [("user", ask), ("assistant", f"{a} {sign} {b} = {result}")]

    def pick_words(self, paragraph: str) -> Turns | None:
        words = re.findall(r"[a-z]{4,}", paragraph)
        if len(words) < 6:
            return None
        some = list(dict.fromkeys(self.rng.sample(words, 6)))
        ask, answer = self.rng.choice(
            [("Sort the words by the alphabet: ", sorted(some)), ("Reverse this list: ", some[::-1])]
        )
        return [("user", ask + ", ".join(some)), ("assistant", ", ".join(answer))]


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [BOS, END, PAD, *ROLES.values()]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024, "bos_token": BOS, "eos_token": END,
        "pad_token": PAD, "chat_template": CHAT_TEMPLATE, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")


def encode_dialogue(tokenizer: Tokenizer, turns: Turns) -> list[int]:
    ids = [0]
    for role, text in turns:
        ids.append(tokenizer.token_to_id(ROLES[role]))
        ids += tokenizer.encode(text, add_special_tokens=False).ids
        if role == "assistant":
            ids.append(1)
    return ids


def write_stream(path: Path, sequences: Iterable[list[int]]) -> int:
    flat = np.fromiter((i for s in sequences for i in s), dtype=np.uint16)
    flat.tofile(path)
    return int(flat.size)


def split(rows: list, rng: random.Random) -> tuple[list, list]:
    rng.shuffle(rows)
    held = max(1, int(len(rows) * HELD_OUT))
    return rows[held:], rows[:held]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build"))
    parser.add_argument("--tasks", type=int, default=90_000, help="how many tasks to cut from the text")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    documents, held_documents = split(read_documents(options.data), rng)
    dialogues, held_dialogues = split(list(read_dialogues(options.data)), rng)

    def said() -> Iterator[str]:
        return (text for turns in dialogues for _, text in turns)

    tokenizer = train_tokenizer([*documents[::2], *said()])
    save_tokenizer(tokenizer, options.out / "tokenizer")
    frequency = Counter(w.lower() for d in documents for w in re.findall(r"[A-Za-z][a-z]{3,}", d))
    tasks = Tasks(frequency, rng)
    paragraphs = [p for d in documents for p in d.split("\n\n") if 60 <= len(p) <= 1500]
    made = (tasks.make(p) for p in rng.choices(paragraphs, k=options.tasks))
    streams = {
        "text.train": ([0, *e.ids, 1] for e in tokenizer.encode_batch(documents, add_special_tokens=False)),
        "text.held": ([0, *e.ids, 1] for e in tokenizer.encode_batch(held_documents, add_special_tokens=False)),
        "tasks.train": (encode_dialogue(tokenizer, turns) for turns in made if turns),
        "dialogues.train": (encode_dialogue(tokenizer, turns) for turns in dialogues),
        "dialogues.held": (encode_dialogue(tokenizer, turns) for turns in held_dialogues),
    }
    counts = {name: write_stream(options.out / f"{name}.bin", rows) for name, rows in streams.items()}
    held_bytes = {
        "text": sum(len(d.encode()) for d in held_documents),
        "dialogues": sum(len(t.encode()) for turns in held_dialogues for _, t in turns),
    }
    facts = {"tokens": counts, "held_bytes": held_bytes, "vocabulary": tokenizer.get_vocab_size(), "seed": options.seed}
    (options.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
