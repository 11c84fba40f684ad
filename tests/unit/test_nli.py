"""A classifier of contradiction: its label is read from its own file, batches and orders change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import transformers  # noqa: E402

from harness.tiny import classifier  # noqa: E402
from tunesift import ModelRefused, ModelUnavailable, NliModel, NoContradiction  # noqa: E402
from tunesift.settings import semantic  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "sea", "is", "cold", "warm", "not"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random classifier, whose contradiction comes last."""
    return classifier(tmp_path_factory.mktemp("nli"), WORDS)


PAIRS = [("the sea is cold", "the sea is warm"), ("the sea", "the sea is not cold is not warm"), ("cold", "warm")]


def slowly(folder: Path, first: str, second: str) -> float:
    """One pair, its tokens written out, the softmax of the three labels, the last of which is contradiction."""
    halves = [[WORDS.index(w) for w in text.split()] for text in (first, second)]
    ids = [2, *halves[0], 3, *halves[1], 3]
    types = [0] * (len(halves[0]) + 2) + [1] * (len(halves[1]) + 1)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).double().eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types])).logits[0]
    return float(torch.exp(logits[2]) / torch.exp(logits).sum())


@pytest.mark.parametrize("batch", [1, 2, 16])
def test_contradiction_is_read_where_the_model_says_it_is(folder: Path, batch: int) -> None:
    found = NliModel(name=str(folder), batch=batch).contradiction(PAIRS)
    assert found == pytest.approx([slowly(folder, *pair) for pair in PAIRS], abs=1e-5)
    assert NliModel(name=str(folder)).contradiction([]) == []


def test_both_orders_of_a_pair_count_alike(folder: Path) -> None:
    first, second = NoContradiction(model=NliModel(name=str(folder))).similar([PAIRS[0], PAIRS[0][::-1]])
    expected = 1 - (slowly(folder, *PAIRS[0]) + slowly(folder, *PAIRS[0][::-1])) / 2
    assert first == second == pytest.approx(expected, abs=1e-5)


def test_a_long_pair_is_cut_to_the_models_window(folder: Path) -> None:
    (found,) = NliModel(name=str(folder), max_length=32).contradiction([("the sea " * 50, "cold")])
    assert 0 < found < 1


def test_a_classifier_of_something_else_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"id2label": {0: "good", 1: "bad", 2: "odd"}}))
    with pytest.raises(ModelRefused) as refusal:
        NliModel(name=str(tmp_path)).contradiction(PAIRS)
    assert str(refusal.value) == (
        f'model "{tmp_path}" has no label for contradiction (good, bad, odd); use one tuned on MNLI.'
    )


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelRefused, match=r"has no \.safetensors weights; convert it, other formats can run code\.$"):
        NliModel(name=str(tmp_path)).contradiction(PAIRS)
    with pytest.raises(
        ModelUnavailable, match=r'nowhere" is not there; give a folder with config\.json or a hub id\.$'
    ):
        NliModel(name=str(tmp_path / "nowhere")).contradiction(PAIRS)


def test_a_device_that_is_not_there_is_a_sentence(folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r'^device: "gpu7" is not to be had here \(.+\); write auto or cpu\.$'):
        NliModel(name=str(folder), device="gpu7").contradiction(PAIRS)
    assert NliModel(name=str(folder), device="auto").contradiction(PAIRS)


def test_a_classifier_is_known_by_its_content(folder: Path) -> None:
    said = semantic(NliModel(name=str(folder), batch=3))
    assert said == semantic(NliModel(name=str(folder), device="cpu"))
    assert isinstance(said, dict)
    assert len(str(said["identity"])) == 32
