"""Result of one image, as a row, as JSON and as a line of text; or a failure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from tesela.core.errors import ImageError
from tesela.core.terminal import line_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why an image has no result; ``code`` is one of ``tesela.imaging.decode.CODES`` or ``wrong_size``."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class Result(ABC):
    """The result for one image.

    Attributes:
        source: the image's path or name.
        failure: why there is no result, else None.
    """

    #: Type of each field of ``answer``: a name such as ``string``, ``int64`` or ``float64``, or a list of
    #: such a mapping.
    schema: ClassVar[dict[str, Any]]
    #: The same of what ``body`` adds.
    body_schema: ClassVar[dict[str, Any]] = {}

    source: str = ""
    failure: Failure | None = None

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """Plain values by the names of ``schema``; None for what an unreadable image lacks."""

    @abstractmethod
    def cells(self) -> dict[str, str]:
        """Columns of a CSV row; none for an unreadable image."""

    @abstractmethod
    def text(self) -> str:
        """One line for people."""

    def body(self) -> dict[str, Any]:
        """What a server answers: the plain values, and what else fits into JSON."""
        return self.answer()

    def files(self) -> dict[str, bytes]:
        """Files of the result, by the ending that the image's name gets; none by default."""
        return {}

    def drawn(self, image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The result drawn over its image (H, W, C); None where there is nothing to draw."""
        del image
        return None

    def bare(self) -> Self:
        """The same result without what only its files need, so that many can be kept."""
        return self

    def of(self, source: str) -> Self:
        """The same result under the image's name."""
        return replace(self, source=source)

    def failed(self, source: str, error: ImageError) -> Self:
        """The result of an image that could not be read."""
        failure = Failure(code=error.code, message=error.message, hint=error.hint)
        return replace(self, source=source, failure=failure)

    def to_mapping(self) -> dict[str, Any]:
        """Plain values for JSON: the image, the answer and the error."""
        failure = self.failure
        error = failure and {"code": failure.code, "message": failure.message, "hint": failure.hint}
        return {"image": self.source, **self.answer(), "error": error}

    def line(self) -> str:
        """The image's name and the text, or why there is none."""
        if self.failure is not None:
            return f"{line_text(self.source)}: unreadable ({self.failure.code}): {self.failure.message}"
        return f"{line_text(self.source)}: {self.text()}"
