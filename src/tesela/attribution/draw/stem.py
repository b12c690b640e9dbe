"""Labels as parts of file names."""

from __future__ import annotations

import re


def label_stem(label: str, index: int) -> str:
    """A label as part of a file name; its index where the label cannot be one as it is."""
    plain = re.fullmatch(r"(?!figure$|class\d+$)[\w-][\w .-]{0,60}", label) and len(label.encode()) <= 80
    return label if plain else f"class{index}"
