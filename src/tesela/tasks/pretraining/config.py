"""Settings of pre-training, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tesela.core.errors import ConfigError

#: Share of the patches that a method hides where nothing else is asked for.
USUAL_RATIO = {"masked": 0.5, "mae": 0.75}


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainConfig:
    """What can be set about learning without labels."""

    method: Literal["masked", "mae", "dino"] = "mae"
    """masked: predict corrupted patches (arXiv 2010.11929, appendix B.1.2); mae: rebuild hidden patches from
    the others (arXiv 2111.06377); dino: agree with a momentum teacher on crops (arXiv 2104.14294)."""
    mask_ratio: float | None = None
    """With masked and mae: share of the patches that is corrupted or hidden; by default 0.5 and 0.75."""
    mask_target: Literal["color", "downsized", "pixels"] = "color"
    """With masked: the mean colour of 3 bits a channel (512 classes), 4x4 such colours, or all pixels
    (L2)."""
    decoder_width: int = 0
    """With mae: width of the decoder's tokens; 0 takes half of the model's."""
    decoder_depth: int = 2
    """With mae: blocks of the decoder."""
    pixel_norm: bool = True
    """With mae: each patch's pixels are normalised by their own mean and deviation before they are a
    target."""
    local_crops: int = 6
    """With dino: small crops beside the two large ones, which the student alone sees."""
    local_size: int = 0
    """With dino: side of a small crop in pixels; 0 takes about 3/7 of the model's view, in whole patches."""
    crop_border: float = 0.4
    """With dino: large crops take at least this share of the image's area, small ones at most."""
    prototypes: int = 1024
    """With dino: outputs that student and teacher agree on."""
    projection_width: int = 512
    """With dino: hidden width of the projection head."""
    student_temperature: float = 0.1
    """With dino: of the student's softmax."""
    teacher_temperature: float = 0.04
    """With dino: of the teacher's softmax, which is sharper."""
    teacher_momentum: float = 0.996
    """With dino: share of the teacher that stays at each step; the rest is the student."""
    center_momentum: float = 0.9
    """With dino: share of the centre of the teacher's outputs that stays at each step."""

    def __post_init__(self) -> None:
        if self.mask_ratio is not None and not 0 < self.mask_ratio < 1:
            raise ConfigError(
                f"mask_ratio must lie between 0 and 1, not {self.mask_ratio}",
                hint="0.5 is usual for masked, 0.75 for mae",
            )
        if not 0 < self.crop_border < 1:
            raise ConfigError(
                f"crop_border must lie between 0 and 1, not {self.crop_border}", hint="0.4 is usual"
            )
        for name in ("teacher_momentum", "center_momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 0 and below 1, not {getattr(self, name)}",
                    hint="0.996 is usual for the teacher, 0.9 for the centre",
                )
        for name in ("student_temperature", "teacher_temperature"):
            if getattr(self, name) <= 0:
                raise ConfigError(
                    f"{name} must be above 0, not {getattr(self, name)}",
                    hint="0.1 for the student and 0.04 for the teacher are usual",
                )
        for name, least in (
            ("decoder_depth", 1),
            ("prototypes", 2),
            ("projection_width", 1),
            ("local_crops", 0),
            ("local_size", 0),
            ("decoder_width", 0),
        ):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"{name} must be at least {least}, not {getattr(self, name)}",
                    hint=f"give {least} or more",
                )

    @property
    def ratio(self) -> float:
        """Share of the patches that is hidden."""
        return USUAL_RATIO.get(self.method, 0.0) if self.mask_ratio is None else self.mask_ratio
