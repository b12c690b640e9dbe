"""``tesela convert``: other programs' weights as a bundle, every tensor accounted for."""

from __future__ import annotations

import re
from pathlib import Path


def convert(
    source: str,
    bundle: Path,
    /,
    *,
    image_size: str | None = None,
    num_classes: int | None = None,
    heads: int | None = None,
    json: bool = False,
) -> None:
    """Foreign weights as a bundle: Hugging Face, timm, JAX, or from the hub.

    Args:
        source: A Hugging Face folder, a timm .safetensors or .pth, a JAX .npz, or hub:NAME[@REVISION].
        bundle: The folder to write.
        image_size: Height and width as HxW, or one side: the images the positions are of, where the file
            leaves that open; else another size to interpolate them to.
        num_classes: Classes of a new head of zeros, where the source has none or another number is wanted.
        heads: Attention heads, for a timm file without config.json whose heads are not 64 wide.
        json: Print one JSON object.
    """
    from tesela.checkpoints.convert import convert_checkpoint as write
    from tesela.cli import output

    output.use_json(json)
    opened = write(source, bundle, image_size=size(image_size), num_classes=num_classes, heads=heads)
    info = opened.info
    parameters = sum(parameter.numel() for parameter in opened.model.parameters())
    height, width = info.model["image_size"]
    output.say(
        f"{bundle}: {info.architecture}, {parameters:,} parameters, {info.num_classes} classes, positions "
        f"of {height}x{width} pixels"
    )
    for remark in opened.remarks:
        output.note(f"note: {remark}")
    origin = info.provenance["source"]
    output.result(
        {
            "bundle": bundle,
            "architecture": info.architecture,
            "parameters": parameters,
            "num_classes": info.num_classes,
            "image_size": [height, width],
            "format": origin["format"],
            "files": origin["files"],
            "carried": origin["carried"],
            "remarks": opened.remarks,
            **{key: origin[key] for key in ("hub", "revision") if key in origin},
        },
        json,
    )


def size(text: str | None) -> tuple[int, int] | None:
    """``384`` or ``384x512`` as (height, width).

    Raises:
        ConfigError: it is neither.
    """
    from tesela.core.errors import ConfigError

    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})(?:[x,]([1-9]\d{0,5}))?", text)
    if found is None:
        raise ConfigError(
            f"image-size {text!r} is no size",
            hint="write --image-size HEIGHTxWIDTH, such as 384x512, or one side",
        )
    return int(found[1]), int(found[2] or found[1])
