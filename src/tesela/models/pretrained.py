"""Pre-trained models that ``--from ALIAS`` starts from, chosen by hand, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A published model.

    Attributes:
        alias: short name.
        repository: on the model hub.
        parameters: number of its weights; a file holds four bytes of each.
        image_size: side in pixels that it is used at.
        license: of the weights.
        origin: who trained it, on what.
    """

    alias: str
    repository: str
    parameters: int
    image_size: int
    license: str
    origin: str

    @property
    def source(self) -> str:
        """The source that every verb takes."""
        return f"hub:{self.repository}"

    @property
    def bytes(self) -> int:
        """Bytes to download."""
        return 4 * self.parameters


_DINO = "Meta, self-supervised, 142 million images"
_REGISTERS = f"{_DINO}, with registers"
_21K = "Google, 14 million labelled images (ImageNet-21k)"
_1K = "Meta, 1.3 million labelled images (ImageNet-1k)"
_MIX = "NVIDIA, ImageNet-1k, then segmentation of ADE20K"
_APACHE = "apache-2.0"
#: From small to large within each kind; the first is what ``tesela train`` takes by itself.
PRETRAINED = tuple(
    Pretrained(*row)
    for row in (
        ("dinov2_s14", "facebook/dinov2-small", 22_056_576, 224, _APACHE, _DINO),
        ("dinov2_b14", "facebook/dinov2-base", 86_580_480, 224, _APACHE, _DINO),
        ("dinov2_l14", "facebook/dinov2-large", 304_368_640, 224, _APACHE, _DINO),
        ("dinov2_reg_s14", "facebook/dinov2-with-registers-small", 22_058_112, 224, _APACHE, _REGISTERS),
        ("dinov2_reg_b14", "facebook/dinov2-with-registers-base", 86_583_552, 224, _APACHE, _REGISTERS),
        ("vit_b16_21k", "google/vit-base-patch16-224-in21k", 86_389_248, 224, _APACHE, _21K),
        ("vit_l16_21k", "google/vit-large-patch16-224-in21k", 304_351_232, 224, _APACHE, _21K),
        ("deit_ti16_1k", "facebook/deit-tiny-patch16-224", 5_717_416, 224, _APACHE, _1K),
        ("deit_s16_1k", "facebook/deit-small-patch16-224", 22_050_664, 224, _APACHE, _1K),
        ("deit_b16_1k", "facebook/deit-base-patch16-224", 86_567_656, 224, _APACHE, _1K),
        ("segformer_b0_ade", "nvidia/segformer-b0-finetuned-ade-512-512", 3_752_694, 512, "other", _MIX),
        ("segformer_b2_ade", "nvidia/segformer-b2-finetuned-ade-512-512", 27_461_974, 512, "other", _MIX),
    )
)
_BY_ALIAS = {model.alias: model for model in PRETRAINED}


def find_pretrained(alias: str) -> Pretrained | None:
    """The model of an alias, None if there is none."""
    return _BY_ALIAS.get(alias)
