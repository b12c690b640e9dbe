"""Cache of converted checkpoints: any source as a bundle folder.

Runs and bundles stay as they are; foreign checkpoints are converted once and kept, and what is not quite the
same in them is said each time.

A converted one is found again by the names, sizes and times of the source's files, and by the version
of tesela that converted it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tesela.checkpoints.convert import convert_checkpoint
from tesela.checkpoints.hub import HUB_PREFIX, download
from tesela.checkpoints.open import ENDINGS, bundle_at, resolve_alias
from tesela.core.files import home, sha256_bytes
from tesela.core.version import __version__
from tesela.models.bundle import locate_bundle, read_info

#: Raised where the same files are read otherwise than before, within one version of tesela.
READING = 3


def bundle_of(source: str | Path) -> Path:
    """The bundle folder of a run, a bundle or a foreign checkpoint.

    Raises:
        UsageError: there is nothing at ``source``.
        WeightsError: it is damaged or does not fit.
    """
    source = resolve_alias(source)
    found = bundle_at(source)
    if found is not None:
        return found
    hub = str(source).startswith(HUB_PREFIX)
    place = download(str(source)).folder if hub else Path(source)
    if not place.exists() or (place.is_dir() and not hub and not _holds_weights(place)):
        return locate_bundle(place)
    files = sorted(place.iterdir()) if place.is_dir() else [place, place.parent / "config.json"]
    stamps = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
        if file.is_file()
    ]
    key = sha256_bytes(json.dumps([__version__, READING, stamps]).encode())[:16]
    target = home() / "converted" / f"{place.resolve().stem}-{key}"
    from tesela.checkpoints.foreign import announce, origin_settings

    if not (target / "config.json").is_file():
        announce(convert_checkpoint(source, target).remarks)
    else:
        announce(origin_settings(read_info(target)).get("remarks", ()))
    return target


def _holds_weights(folder: Path) -> bool:
    return any(path.suffix in ENDINGS for path in folder.iterdir()) or (folder / "config.json").is_file()
