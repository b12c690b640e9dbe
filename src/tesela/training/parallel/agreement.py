"""Agreement of ranks on their data, checked before the first step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tesela.hardware.ranks import Ranks

if TYPE_CHECKING:
    from tesela.data.loader import Loader
    from tesela.data.source import Source


def agree_on_data(ranks: Ranks, source: Source) -> None:
    """Refuse ranks that see other images, splits or targets.

    Raises:
        DataError: on every rank.
    """
    if not ranks.alone:
        from tesela.data.digest import data_digest

        ranks.agree("the data", data_digest(source), hint="let every machine see the same files")


def agree_on_images(ranks: Ranks, *loaders: Loader | None) -> None:
    """Refuse ranks that can read other images than rank 0.

    Raises:
        DataError: on every rank.
    """
    if not ranks.alone:
        text = " ".join(str(loader.indices.tolist()) for loader in loaders if loader is not None)
        hint = "unreadable.json lists those of rank 0; let every machine see the same files"
        ranks.agree("which images can be read", text, hint=hint)
