"""Does one text contradict another? A local classifier of natural language inference, from a folder or by its id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from tunesift.errors import ModelRefused, shown
from tunesift.heartbeat import beat, loading
from tunesift.models.folders import LOADING, folder_identity
from tunesift.models.loading import load
from tunesift.models.local import check_count
from tunesift.settings import INCIDENTAL, Settings


@dataclass(frozen=True, kw_only=True)
class NliModel(Settings):
    """A classifier of text pairs with a label for contradiction. Safetensors only, no code from the model."""

    kind: Literal["nli"] = "nli"
    name: str
    """A folder, or a hub id whose files are on this machine; the paper has DeBERTa-large, tuned on MNLI."""
    max_length: int = 512
    """Most tokens of a pair; the longer of the two texts is cut on the right."""
    device: Annotated[str, INCIDENTAL] = "cpu"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""
    batch: Annotated[int, INCIDENTAL] = 16
    """Pairs of one batch."""

    concurrency: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("max_length", self.max_length, "512")
        check_count("batch", self.batch, "16")

    def identity(self) -> str:
        """Digest of the folder's content; the name of a hub id."""
        return folder_identity(self.name, None)

    def contradiction(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Probability that the second text of each pair contradicts the first."""
        model, tokenizer = _loaded(self.name, self.device)  # first: it says which extra is missing
        import torch

        label = _label(self.name, model.config.id2label)
        found: list[float] = []
        for start in range(0, len(pairs), self.batch):
            firsts, seconds = zip(*pairs[start : start + self.batch], strict=True)
            given = tokenizer(list(firsts), list(seconds), truncation="longest_first", max_length=self.max_length,
                              padding=True, return_tensors="pt").to(model.device)  # fmt: skip
            with torch.inference_mode():
                logits = model(**given).logits.float()  # [B, labels]
            found += torch.softmax(logits, dim=1)[:, label].tolist()
            beat(len(firsts) / len(pairs))
        return found


def _label(name: str, labels: dict[int, str]) -> int:
    """Checkpoints order their labels differently; the model's own names say which is which."""
    found = [number for number, label in labels.items() if label.lower().startswith("contradict")]
    if len(found) != 1:
        said = ", ".join(map(str, labels.values()))
        raise ModelRefused(
            f'model "{shown(name)}" has no label for contradiction ({said[:80]}); use one tuned on MNLI.'
        )
    return int(found[0])


@cache
def _loaded(name: str, device: str) -> tuple[Any, Any]:  # Any: transformers' own classes
    with LOADING, loading(name):
        return load("AutoModelForSequenceClassification", name, device)
