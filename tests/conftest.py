"""What tests share: a tiny local transformer made from a config, scripted models, a run folder, the real data."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.tiny import MakeTiny
from tunesift import Local, Message, Record, Run, TunesiftError

pytest_plugins = ["faultserver.fixtures", "harness.command"]

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
WITNESS = str(ROOT / "tests" / "harness" / "witness")


MOST_SAID, MOST_QUOTED = 400, 80
"""Characters of a sentence, and of data in it."""
made: list[TunesiftError] = []
"""Every error of ours that this test made."""
plain_init = TunesiftError.__init__


def noted(error: TunesiftError, *sentences: object) -> None:
    """Make an error, and remember it."""
    plain_init(error, *sentences)
    made.append(error)


TunesiftError.__init__ = noted  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def made_in_children(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file into which every Python that a test starts writes the errors of ours that are made in it."""
    path = tmp_path_factory.mktemp("errors") / "made"
    path.touch()
    os.environ["TUNESIFT_ERRORS_MADE"] = str(path)
    before = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and p != WITNESS]
    os.environ["PYTHONPATH"] = os.pathsep.join([WITNESS, *before])
    return path


@pytest.fixture(autouse=True)
def every_error_is_a_sentence(made_in_children: Path) -> Iterator[None]:
    """Whatever a test was about: each error of ours that was made in it, or in a process that it started, reads as the
    contract says (R45, S21)."""
    made.clear()
    os.truncate(made_in_children, 0)
    yield
    said = [(type(e).__name__, str(e), len(e.args)) for e in made]
    said += [tuple(json.loads(line)) for line in made_in_children.read_text().splitlines()]
    made.clear()
    wrong = [f"{name} {fault}: {text!r}" for name, text, sentences in said if (fault := fault_of(text, sentences))]
    assert not wrong, "\n".join(wrong)


def fault_of(error: str, sentences: int) -> str:
    """What is wrong with an error as text; empty where nothing is."""
    for said in error.split("\n"):
        quoted = max(map(len, re.findall(r'"([^"]*)"', said)), default=0)
        faults = {
            "is not printable": not said.isprintable(),
            f"has {len(said)} characters": len(said) > MOST_SAID,
            "ends in no full stop": not said.endswith((".", "?")),
            f"quotes {quoted} characters": quoted > MOST_QUOTED,
            "says nothing": len(said) < 10,
        }
        if fault := next((fault for fault, there in faults.items() if there), ""):
            return fault
    return "is not one line for each sentence" if error.count("\n") != sentences - 1 else ""


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data sets for development, where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared/data with the real data sets is not here")
    return SHARED


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """An open run in an empty folder."""
    with Run(tmp_path / "run", Local()) as opened:
        yield opened


def record(id: str, instruction: str = "Say hello.", response: str = "Hello there.") -> Record:
    """A record of one turn."""
    return Record(id, (Message("user", instruction), Message("assistant", response)))


@pytest.fixture(scope="session")
def make_tiny(tmp_path_factory: pytest.TempPathFactory) -> MakeTiny:
    """Makes the folder of a tiny random model of an architecture, with a byte-level tokenizer of its own."""
    torch = pytest.importorskip("torch", reason='needs the "local" extra')
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)  # for matrices this small, a second thread is only waited for

    def make(kind: str = "llama", *, seed: int = 0, zero: bool = False, length: int = 256, layers: int = 2) -> Path:
        folder = tmp_path_factory.mktemp(f"tiny-{kind}")
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        words = {c: n for n, c in enumerate(["<s>", "</s>", *alphabet, "Ġt", "he", "Ġthe", "in", "ĊĊ", "ĠĠ"])}
        merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ċ", "Ċ"), ("Ġ", "Ġ")]
        tokenizer = Tokenizer(models.BPE(vocab=words, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(["<s>", "</s>"])
        if kind == "llama":
            tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        tokenizer.save(str(folder / "tokenizer.json"))
        template = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}[assistant]"
        config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "chat_template": template}
        config |= {"bos_token": "<s>"} if kind == "llama" else {"chat_template": None}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        torch.manual_seed(seed)
        size = len(words)
        if kind == "llama":
            shape = LlamaConfig(
                vocab_size=size, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=4,
                num_key_value_heads=2, max_position_embeddings=length, bos_token_id=0, eos_token_id=1,
                initializer_range=0.3, tie_word_embeddings=False,
            )  # fmt: skip
            model = LlamaForCausalLM(shape)
        else:
            gpt2 = GPT2Config(
                vocab_size=size, n_embd=32, n_layer=layers, n_head=4, n_positions=length, bos_token_id=1, eos_token_id=1,
                initializer_range=0.3,
            )  # fmt: skip
            model = GPT2LMHeadModel(gpt2)
        if zero:
            for parameter in model.parameters():
                torch.nn.init.zeros_(parameter)
        model.save_pretrained(folder, safe_serialization=True)
        return folder

    return make
