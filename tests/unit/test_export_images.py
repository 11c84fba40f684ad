"""The pairs of `sima tuner=null` as TRL trains on them: images, answers, settings, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from harness.seeing import asked, embedded, llava, pictured, rows
from tunesift import RecipeError, Sima, VisionModel, recipe_for, run_recipe
from tunesift.export import export
from tunesift.export_images import seeing
from tunesift.models.scripted import ScriptedModel

pytest.importorskip("PIL", reason='needs the "vision" extra')
FIRST = {"kind": "scripted", "otherwise": "A thing.", "replies": {"Now compare these": "[[1]]"}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run that made four pairs."""
    plain = ScriptedModel.chat
    monkeypatch.setattr(
        ScriptedModel, "chat",
        lambda model, said, how: plain(ScriptedModel(otherwise=f"At {how.temperature}.", replies=model.replies), said, how),
    )  # fmt: skip
    home = tmp_path / "data"
    images = [*pictured(home, 3), embedded()]
    (home / "in.jsonl").write_text(
        rows([asked(f"r{n}", image, f"What is {n}?") for n, image in enumerate(images)]), "utf-8"
    )
    words = ["tuner=null", "critic_orders=single", f"student={json.dumps(FIRST)}"]
    return run_recipe(recipe_for("sima", home / "in.jsonl", tmp_path / "pairs.jsonl", words)).folder


def read(folder: Path, split: str = "train") -> Any:
    datasets = pytest.importorskip("datasets", reason='needs the "train" extra')
    return datasets.load_dataset(str(folder / "pairs"), split=split, cache_dir=str(folder.parent / "cache"))


def test_trl_reads_every_pair_with_its_image(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "trl", ["student.name=llava", "tuner.epochs=2", "tuner.held_out=0.25"])
    assert (done.records, done.held_out, dict(done.left_out)) == (3, 1, {})
    assert set(done.files) == {"pairs/train.parquet", "pairs/test.parquet", "dpo.yaml", "README.txt"}
    found = [*read(done.folder), *read(done.folder, "test")]
    assert sorted(row["id"] for row in found) == ["r0", "r1", "r2", "r3"]
    for row in found:
        (image,) = row["images"]
        assert (image.mode, image.size) == ("RGB", (9, 9) if row["id"] == "r3" else (40, 30))
        assert row["prompt"] == [{"role": "user", "content": f"What is {row['id'][1:]}?"}]
        assert row["chosen"] == [{"role": "assistant", "content": "At 0.8."}]
        assert row["rejected"] == [{"role": "assistant", "content": "At 0.0."}]
    said = yaml.safe_load((done.folder / "dpo.yaml").read_text())
    assert {name: said[name] for name in ("beta", "learning_rate", "num_train_epochs", "lora_r", "lora_alpha", "max_length")} == {
        "beta": 0.1, "learning_rate": 1e-7, "num_train_epochs": 2.0, "lora_r": 128, "lora_alpha": 256, "max_length": None,
    }  # fmt: skip
    assert any("adapters stand in what reads the images, too" in difference for difference in done.differences)


def test_an_image_of_sixteen_bits_is_not_written_so_that_others_see_it_white(run: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("I;16", (4, 4), 128 * 256).save(tmp_path / "data" / "1.png")
    plain = (tmp_path / "data" / "0.png").read_bytes()
    done = export(run, tmp_path / "out", "trl", ["student.name=llava"])
    images = {row["id"]: row["images"][0] for row in read(done.folder)}
    assert images["r1"].getcolors() == [(16, (128, 128, 128))]
    stored = pq.read_table(done.folder / "pairs" / "train.parquet").to_pylist()
    assert [row["images"][0]["bytes"] for row in stored if row["id"] == "r0"] == [plain]  # as it is in its file


def test_what_is_exported_is_tuned_from_the_weights_that_answered(tmp_path: Path) -> None:
    """Their revision and type too, unless another model is named."""
    answered = VisionModel(name="me/llava", revision="abc123", dtype="bfloat16")
    own = seeing(Sima(student=answered, tuner=None), []).student
    assert (own.name, own.revision, own.dtype) == ("me/llava", "abc123", "bfloat16")
    other = seeing(Sima(student=answered, tuner=None), ["student.name=me/other"]).student
    assert (other.name, other.revision, other.dtype) == ("me/other", None, VisionModel().dtype)
    coarser = seeing(Sima(student=answered, tuner=None), ["student.dtype=float32"]).student
    assert (coarser.revision, coarser.dtype) == ("abc123", "float32")


def test_a_pair_whose_image_is_gone_is_left_out_and_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "1.png").unlink()
    done = export(run, tmp_path / "out", "trl", ["student.name=llava"])
    assert done.records == 3
    (left,) = [json.loads(line) for line in (done.folder / "left_out.jsonl").read_text().splitlines()]
    assert (left["id"], "(FileNotFoundError)" in left["reason"]) == ("r1", True)


@pytest.mark.parametrize(("to", "settings", "sentence"), [
    ("axolotl", ["student.name=llava"], "--to: pairs with images are written for TRL alone, not for axolotl; write --to trl"),
    ("llama-factory", ["student.name=llava"], "not for llama-factory; write --to trl"),
    ("trl", [], "student.name: is not given; write student.name=FOLDER"),
    ("trl", ["student.name=llava", "tuner=null"], "is no setting of a training"),
    ("trl", ["student.name=llava", "parser=official"], "is no setting of a training"),
    ("trl", ["student.name=llava", "tuner.beta=0"], "beta: 0 is not above 0"),
])  # fmt: skip
def test_what_cannot_be_exported_says_why_and_nothing_is_written(
    run: Path, tmp_path: Path, to: str, settings: list[str], sentence: str
) -> None:
    with pytest.raises(RecipeError, match=sentence):
        export(run, tmp_path / "out", to, settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lora", ["tuner.lora=null", "tuner.lora.rank=4"])
def test_trls_own_command_trains_on_the_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: str
) -> None:
    trl = pytest.importorskip("trl", reason='needs the "train" extra')
    from trl.scripts.dpo import main, make_parser

    words = [f"student.name={llava(tmp_path / 'llava')}", "tuner.steps=2", "tuner.precision=float32", lora,
             "tuner.learning_rate=1e-3", "student.dtype=float32"]  # fmt: skip
    done = export(run, tmp_path / "out", "trl", words)
    monkeypatch.chdir(done.folder)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    parts = make_parser().parse_args_and_config(["--config", "dpo.yaml"], fail_with_unknown_args=False)
    main(*parts[:4])
    assert trl is not None
    assert list((done.folder / "tuned").glob("*.safetensors"))
