"""Ranks: processes that train one model together, and the things that they tell one another.

Odd: nothing is pickled; what ranks tell one another is numbers and text. torch is imported when there are
several.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tesela.core.errors import DataError, TeselaError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class PeerLostError(TeselaError):
    """Another rank has ended, so that this one cannot go on."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process and the others.

    Attributes:
        index: number of this one, from 0; rank 0 writes, logs and shows progress.
        count: how many there are.
        restarts: how often the launcher began again.
    """

    index: int = 0
    count: int = 1
    restarts: int = 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.count == 1

    @property
    def writes(self) -> bool:
        """Whether this rank writes files and shows progress."""
        return self.index == 0

    def span(self, images: int) -> tuple[int, int]:
        """First and last-plus-one of the images of a batch that are this rank's; even to one image."""
        return images * self.index // self.count, images * (self.index + 1) // self.count

    def sums(self, values: Sequence[float]) -> list[float]:
        """Each value summed over the ranks."""
        if self.alone:
            return list(values)
        import torch
        import torch.distributed as dist

        found = torch.tensor(values, dtype=torch.float64)
        with alive():
            dist.all_reduce(found)
        result: list[float] = found.tolist()
        return result

    def text(self, text: str = "") -> str:
        """The text of rank 0, on every rank."""
        if self.alone:
            return text
        import torch
        import torch.distributed as dist

        data = torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        with alive():
            dist.broadcast(size, 0)
            data = data if self.writes else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(data, 0)
        return text if self.writes else bytes(data.numpy()).decode()

    def tell(self, call: Callable[[], T], text: Callable[[T], str]) -> T:
        """What ``call`` gives, on rank 0, while the others ``hear`` the text of it or that it failed."""
        if self.alone:
            return call()
        try:
            found = call()
            said = f"+{text(found)}"
        except BaseException:
            self.text("-")
            raise
        self.text(said)
        return found

    def hear(self) -> str:
        """The text that rank 0 tells.

        Raises:
            PeerLostError: what rank 0 was doing has failed.
        """
        said = self.text()
        if said.startswith("-"):
            raise PeerLostError("rank 0 did not go on", hint="see its message")
        return said[1:]

    def first(self, call: Callable[[], str]) -> str:
        """The text that ``call`` gives on rank 0, on every rank; where it fails there, all of them fail.

        Raises:
            PeerLostError: it failed, on the other ranks.
        """
        return self.tell(call, str) if self.writes else self.hear()

    def agree(self, what: str, text: str, *, hint: str) -> None:
        """Refuse ranks that are not told the same.

        Args:
            what: is compared, for the message.
            text: this rank's, of any length.
            hint: how to mend it.

        Raises:
            DataError: on every rank; it names those that differ from rank 0.
        """
        if self.alone:
            return
        digest = hashlib.sha256(text.encode()).digest()[:6]  # whole in a float64
        mine = int.from_bytes(digest, "big")
        found = self.sums([float(mine) if rank == self.index else 0.0 for rank in range(self.count)])
        others = [str(rank) for rank, value in enumerate(found) if value != found[0]]
        if others:
            raise DataError(f"rank 0 and rank {', '.join(others)} disagree on {what}", hint=hint)

    def gathered(self, part: Tensor, images: int) -> Tensor | None:
        """(images, ...) put together on rank 0 of what each rank has of its ``span``; None elsewhere."""
        if self.alone:
            return part
        import torch
        import torch.distributed as dist

        spans = [Ranks(rank, self.count).span(images) for rank in range(self.count)]
        most = max(end - begin for begin, end in spans)
        padded = part.new_zeros((most, *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in spans] if self.writes else None
        with alive():
            dist.gather(padded, parts, dst=0)
        if parts is None:
            return None
        return torch.cat([one[: end - begin] for one, (begin, end) in zip(parts, spans, strict=True)])


#: A single process.
ALONE = Ranks()


@contextlib.contextmanager
def alive() -> Iterator[None]:
    """Say it clearly where the connection to another process ends.

    Raises:
        PeerLostError: it has.
    """
    try:
        yield
    except RuntimeError as error:
        raise PeerLostError(
            f"another process of this training has ended: {first_line(error)}", hint="see its message"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, in at most 120 letters."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
