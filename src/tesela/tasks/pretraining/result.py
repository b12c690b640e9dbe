"""Result of an embedder: the embedding of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tesela.tasks.result import Result


@dataclass(frozen=True, kw_only=True)
class Embedding(Result):
    """The embedding of one image.

    Attributes:
        vector: D' numbers; empty where the image could not be read.
    """

    schema: ClassVar[dict[str, Any]] = {"embedding": ["float64"]}

    vector: tuple[float, ...] = ()

    def answer(self) -> dict[str, Any]:
        """The vector."""
        return {"embedding": list(self.vector)}

    def cells(self) -> dict[str, str]:
        """A column for each number."""
        return {f"e{place}": repr(value) for place, value in enumerate(self.vector)}

    def text(self) -> str:
        """The length of the vector and its first numbers."""
        shown = ", ".join(f"{value:.3f}" for value in self.vector[:4])
        return f"{len(self.vector)} numbers: {shown} ..."
