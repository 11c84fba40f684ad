"""How does a sentence encoder place texts in a space? Through sentence-transformers, from a folder or by a hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from tunesift.errors import MissingExtra, ModelUnavailable
from tunesift.heartbeat import beat
from tunesift.models.folders import folder_identity
from tunesift.settings import INCIDENTAL, Settings


@dataclass(frozen=True, kw_only=True)
class SentenceModel(Settings):
    """A sentence encoder such as MiniLM, with its own pooling and truncation; no code from the model is run."""

    kind: Literal["sentence-transformers"] = "sentence-transformers"
    name: str
    """A folder, or a hub id."""
    revision: str | None = None
    """Commit of a hub id; None for its main branch."""
    device: Annotated[str, INCIDENTAL] = "auto"
    """cpu, cuda, mps; auto takes a GPU where there is one."""
    batch: Annotated[int, INCIDENTAL] = 64
    """Texts of one batch."""

    concurrency: ClassVar[int] = 1

    def identity(self) -> str:
        """Digest of the folder's content; the revision of a hub id."""
        return folder_identity(self.name, self.revision)

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One vector of length 1 per text."""
        found = _encoder(self.name, self.revision, self.device).encode(
            list(texts), batch_size=self.batch, normalize_embeddings=True, show_progress_bar=False
        )
        beat()
        return [tuple(round(float(x), 6) for x in vector) for vector in found]


@cache
def _encoder(name: str, revision: str | None, device: str) -> Any:  # Any: sentence-transformers' own class
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra('a sentence encoder needs the "embed" extra: pip install "tunesift[embed]".') from error
    try:
        return SentenceTransformer(name, revision=revision, device=None if device == "auto" else device)
    except (OSError, ValueError) as error:
        said = str(error).partition("\n")[0]
        raise ModelUnavailable(f'model "{name}" cannot be loaded as a sentence encoder ({said}).') from None
