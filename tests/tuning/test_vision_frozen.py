"""Which weights of a model that reads images are trained: not those that read them, but those that lead to language."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

from harness.seeing import asked, job, llava, pair, pictured, rows, trained
from tunesift import Dataset, LoRA, RecipeError, TuningError, VisionDPO, VisionModel, recipe_for, run_recipe
from tunesift.tuning import vision_parts

pytest.importorskip("trl", reason='needs the "train" extra')

from tunesift.tuning.vision_parts import freeze_encoder, language_layers


def qwen() -> Any:
    """A Qwen2-VL of one layer of each kind: its merger lies within what reads images."""
    import torch
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    torch.manual_seed(0)
    sees = {"depth": 1, "embed_dim": 16, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10_000.0}
    speaks = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "num_key_value_heads": 1, "rope_parameters": rope}  # fmt: skip
    shape = Qwen2VLConfig(vision_config=sees, text_config=speaks, image_token_id=60, vision_start_token_id=61)
    return Qwen2VLForConditionalGeneration(shape)


def tiny_llava() -> Any:
    """A LLaVA of the same size: its projector lies beside what reads images."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sees = CLIPVisionConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28,
                            patch_size=14, projection_dim=32)  # fmt: skip
    speaks = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=sees, text_config=speaks, image_token_id=60))


@pytest.mark.parametrize(("made", "sees", "leads"), [
    (qwen, "model.visual.", "model.visual.merger."),
    (tiny_llava, "model.vision_tower.", "model.multi_modal_projector."),
], ids=["qwen2-vl", "llava"])  # fmt: skip
def test_what_reads_images_stays_and_what_leads_to_language_is_trained(made: Any, sees: str, leads: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = made()
    freeze_encoder(model, "tiny")
    learned = {name for name, weight in model.named_parameters() if weight.requires_grad}
    everything = {name for name, _ in model.named_parameters()}
    assert everything - learned == {name for name in everything if name.startswith(sees) and not name.startswith(leads)}
    assert {name for name in learned if name.startswith(leads)}
    assert any("language_model" in name for name in learned)


def test_the_merger_of_a_qwen_gets_a_gradient_and_its_blocks_none() -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = qwen()
    freeze_encoder(model, "tiny")
    ids = torch.tensor([[1, 61, 60, 60, 60, 60, 2, 3]])
    kinds = (ids == 60).long()
    seen = torch.randn(16, 3 * 2 * 14 * 14)
    out = model(
        input_ids=ids, pixel_values=seen, image_grid_thw=torch.tensor([[1, 4, 4]]), mm_token_type_ids=kinds, labels=ids
    )
    out.loss.backward()
    visual = model.model.visual
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in visual.merger.mlp.parameters())
    assert all(weight.grad is None for weight in visual.blocks.parameters())


class Unknown:
    """A model whose parts have names that nobody knows, as transformers hands them over."""

    def __init__(self, model: Any, encoder: Any) -> None:
        self._model, self._encoder = model, encoder

    def get_encoder(self, modality: str) -> Any:
        return self._encoder

    def get_decoder(self) -> Any:
        return self._model.get_decoder()

    def named_modules(self) -> Any:
        return self._model.named_modules()


def test_a_model_whose_parts_are_not_known_is_refused_and_nothing_is_frozen() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = tiny_llava()
    said = "student: of odd it is not known which part reads images .* write tuner.lora.rank=128"
    with pytest.raises(TuningError, match=said):
        freeze_encoder(Unknown(model, model), "odd")  # what transformers hands over where it finds no encoder
    tower = model.get_encoder(modality="image")
    model.model.bridge = model.model.multi_modal_projector
    del model.model.multi_modal_projector
    with pytest.raises(TuningError, match=said):
        freeze_encoder(Unknown(model, tower), "odd")
    assert all(weight.requires_grad for weight in model.parameters())


def test_all_weights_but_those_that_read_images_move_in_a_training(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    pictured(tmp_path / "data", 2)
    home = llava(tmp_path / "llava")
    student = VisionModel(name=str(home), device="cpu", images=tmp_path / "data")
    data = Dataset.of([pair(f"p{n}", f"{n}.png", rejected="A dog. " * (n + 1)) for n in range(2)])
    tuner = VisionDPO(steps=2, batch=2, learning_rate=1e-2, warm_up=0.0, lora=None)
    trained(job(tmp_path / "out", student, tuner, data))
    before, after = load_file(home / "model.safetensors"), load_file(tmp_path / "out" / "model" / "model.safetensors")
    moved = {name for name in before if not before[name].equal(after[name])}
    assert not [name for name in moved if "vision_tower" in name]
    assert [name for name in moved if "multi_modal_projector" in name]
    assert [name for name in moved if "language_model" in name]


@pytest.mark.parametrize("targets", [(), ("q_proj",)])
def test_adapters_stand_beside_layers_of_language_and_neither_at_its_head_nor_in_what_reads_images(
    targets: tuple[str, ...],
) -> None:
    """Of a model whose language model holds its head, as BLIP-2's does, and of one whose parts lie in one another."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, nested = tiny_llava(), tiny_llava()
    model.model.language_model.lm_head = torch.nn.Linear(32, 64)
    nested.get_decoder = lambda: nested.model  # what transformers hands over where it knows no name of it
    for one, also in ((model, set[str]()), (nested, {"linear_1", "linear_2"})):
        wanted = re.compile(language_layers(one, LoRA(targets=targets), "tiny"))
        linear = {name for name, part in one.named_modules() if isinstance(part, torch.nn.Linear)}
        found = {name for name in linear if wanted.fullmatch(name)}
        every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", *also}
        assert {name.rpartition(".")[2] for name in found} == (set(targets) or every)
        assert not [name for name in found if "vision" in name or "lm_head" in name]


@pytest.mark.parametrize(("settings", "sentence"), [
    (["tuner.lora.targets=[fc1]"], "tuner.lora.targets: what writes language in .* has no linear layer fc1; it has down_proj, "),
    (["tuner.lora.targets=[q_proj,lm_head]"], "has no linear layer lm_head; it has down_proj, gate_proj, k_proj, o_proj"),
    (["tuner.lora=null"], "student: of .* it is not known which part reads images and which leads from it to language"),
])  # fmt: skip
def test_parts_that_cannot_be_trained_are_refused_before_anybody_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: list[str], sentence: str
) -> None:
    """And without any weights: here there are none."""
    pictured(tmp_path / "data", 1)
    (tmp_path / "data" / "in.jsonl").write_text(rows([asked("a", "0.png")]))
    folder = llava(tmp_path / "llava")
    (folder / "model.safetensors").unlink()
    if settings == ["tuner.lora=null"]:
        monkeypatch.setattr(vision_parts, "_PROJECTORS", ("bridge",))
    words = [f"student.name={folder}", "student.device=cpu", *settings]
    recipe = recipe_for("sima", tmp_path / "data" / "in.jsonl", tmp_path / "tuned", words)
    with pytest.raises(RecipeError, match=sentence):
        run_recipe(recipe)
    assert not recipe.run_folder.exists()


def test_of_a_model_that_cannot_be_built_of_its_config_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "of-nobody", "vision_config": {}}')
    vision_parts.check_parts(VisionModel(name=str(tmp_path)), VisionDPO(lora=None))


def test_adapters_of_the_authors_rank_are_the_default() -> None:
    assert VisionDPO().lora == LoRA(rank=128, alpha=256)
