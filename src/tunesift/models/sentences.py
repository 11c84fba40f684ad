"""How does a sentence encoder place texts in a space? Through sentence-transformers, from a folder or by a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from tunesift.errors import MissingExtra, ModelUnavailable, first_line, shown
from tunesift.heartbeat import beat, loading
from tunesift.models.folders import LOADING, folder_identity, local_folder, nowhere, place_of
from tunesift.models.loading import usable_device
from tunesift.models.local import check_count
from tunesift.settings import INCIDENTAL, Settings


@dataclass(frozen=True, kw_only=True)
class SentenceModel(Settings):
    """A sentence encoder such as MiniLM, with its own pooling and truncation; safetensors, no code from the model."""

    kind: Literal["sentence-transformers"] = "sentence-transformers"
    name: str
    """A folder, or a hub id whose files are on this machine."""
    revision: str | None = None
    """Commit of a hub id; None for its main branch."""
    device: Annotated[str, INCIDENTAL] = "auto"
    """cpu, cuda, mps; auto takes a GPU where there is one."""
    batch: Annotated[int, INCIDENTAL] = 64
    """Texts of one batch."""

    concurrency: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_count("batch", self.batch, "64")

    def identity(self) -> str:
        """Digest of the folder's content; the revision of a hub id."""
        return folder_identity(self.name, self.revision)

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One vector of length 1 per text."""
        found = _encoder(self.name, self.revision, self.device).encode(
            list(texts), batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
        )
        beat(1.0)
        return [tuple(round(float(x), 6) for x in vector) for vector in found]


@cache
def _encoder(name: str, revision: str | None, device: str) -> Any:  # Any: sentence-transformers' own class
    with LOADING, loading(name):
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtra('a sentence encoder needs the "embed" extra: pip install "tunesift[embed]".') from error
        place, folder = place_of(name, revision), local_folder(name)
        try:
            return SentenceTransformer(
                place, revision=revision, device=usable_device(device), trust_remote_code=False,
                model_kwargs={"use_safetensors": True}, local_files_only=folder is not None,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            if folder is None:
                raise nowhere(name) from error
            said = first_line(error)
            raise ModelUnavailable(f'model "{shown(name)}" cannot be loaded as a sentence encoder ({said}).') from None
