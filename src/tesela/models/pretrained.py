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
        gflops: of one such image through the image encoder; two operations for each multiply-add.
        license: of the weights, as their card names it.
        origin: who trained it, on what.
        gated: whether the hub asks for consent, and a token, before it gives them.
    """

    alias: str
    repository: str
    parameters: int
    image_size: int
    gflops: float
    license: str
    origin: str
    gated: bool = False

    @property
    def source(self) -> str:
        """The source that every verb takes."""
        return f"hub:{self.repository}"

    @property
    def bytes(self) -> int:
        """Bytes to download."""
        return 4 * self.parameters


_DINO = "Meta, self-supervised, 142 million images"
_DINO3 = "Meta, self-supervised, 1.7 billion images"
_REGISTERS = f"{_DINO}, with registers"
_21K = "Google, 14 million labelled images (ImageNet-21k)"
_1K = "Meta, 1.3 million labelled images (ImageNet-1k)"
_SWIN = "Microsoft, 1.3 million labelled images (ImageNet-1k)"
_MIX = "NVIDIA, ImageNet-1k, then segmentation of ADE20K"
_SIGLIP = "Google, images with captions (WebLI); whole model with its text encoder"
_CLIP = "OpenAI, 400 million images with captions; whole model with its text encoder"
_MAE = "Meta, masked images of ImageNet-1k; with its decoder"
_MSN = "Meta, masked siamese networks, ImageNet-1k"
_BEIT = "Microsoft, masked images of ImageNet-21k, then its labels and ImageNet-1k's"
_JEPA = "Meta, joint-embedding prediction, ImageNet-1k"
_APACHE = "apache-2.0"
#: From small to large within each kind; the first is what ``tesela train`` takes by itself.
PRETRAINED = tuple(
    Pretrained(*row)
    for row in (
        ("dinov2_s14", "facebook/dinov2-small", 22_056_576, 224, 12.2, _APACHE, _DINO),
        ("dinov2_b14", "facebook/dinov2-base", 86_580_480, 224, 46.3, _APACHE, _DINO),
        ("dinov2_l14", "facebook/dinov2-large", 304_368_640, 224, 162.0, _APACHE, _DINO),
        (
            "dinov2_reg_s14",
            "facebook/dinov2-with-registers-small",
            22_058_112,
            224,
            12.5,
            _APACHE,
            _REGISTERS,
        ),
        ("dinov2_reg_b14", "facebook/dinov2-with-registers-base", 86_583_552, 224, 47.1, _APACHE, _REGISTERS),
        (
            "dinov3_s16",
            "facebook/dinov3-vits16-pretrain-lvd1689m",
            21_596_544,
            224,
            9.4,
            "other",
            _DINO3,
            True,
        ),
        (
            "dinov3_b16",
            "facebook/dinov3-vitb16-pretrain-lvd1689m",
            85_660_416,
            224,
            35.9,
            "other",
            _DINO3,
            True,
        ),
        (
            "dinov3_l16",
            "facebook/dinov3-vitl16-pretrain-lvd1689m",
            303_129_600,
            224,
            125.7,
            "other",
            _DINO3,
            True,
        ),
        ("siglip_b16", "google/siglip-base-patch16-224", 203_155_970, 224, 34.9, _APACHE, _SIGLIP),
        ("siglip_so400m", "google/siglip-so400m-patch14-384", 877_960_498, 384, 666.4, _APACHE, _SIGLIP),
        ("siglip2_b16", "google/siglip2-base-patch16-224", 375_187_970, 224, 34.9, _APACHE, _SIGLIP),
        ("clip_b32", "openai/clip-vit-base-patch32", 151_277_313, 224, 8.8, "unstated", _CLIP),
        ("clip_b16", "openai/clip-vit-base-patch16", 149_620_737, 224, 35.1, "unstated", _CLIP),
        ("clip_l14", "openai/clip-vit-large-patch14", 427_616_513, 224, 162.0, "unstated", _CLIP),
        ("mae_b16", "facebook/vit-mae-base", 111_907_840, 224, 35.1, _APACHE, _MAE),
        ("mae_l16", "facebook/vit-mae-large", 329_541_888, 224, 123.1, _APACHE, _MAE),
        ("msn_s16", "facebook/vit-msn-small", 21_665_664, 224, 9.2, _APACHE, _MSN),
        ("beit_b16", "microsoft/beit-base-patch16-224", 86_530_984, 224, 35.1, _APACHE, _BEIT),
        ("ijepa_h14", "facebook/ijepa_vith14_1k", 630_762_240, 224, 333.2, "cc-by-nc-4.0", _JEPA),
        ("vit_b16_21k", "google/vit-base-patch16-224-in21k", 86_389_248, 224, 35.1, _APACHE, _21K),
        ("vit_l16_21k", "google/vit-large-patch16-224-in21k", 304_351_232, 224, 123.1, _APACHE, _21K),
        ("deit_ti16_1k", "facebook/deit-tiny-patch16-224", 5_717_416, 224, 2.5, _APACHE, _1K),
        ("deit_s16_1k", "facebook/deit-small-patch16-224", 22_050_664, 224, 9.2, _APACHE, _1K),
        ("deit_b16_1k", "facebook/deit-base-patch16-224", 86_567_656, 224, 35.1, _APACHE, _1K),
        (
            "swin_tiny_1k",
            "microsoft/swin-tiny-patch4-window7-224",
            28_288_354,
            224,
            9.0,
            _APACHE,
            _SWIN,
        ),
        (
            "swin_base_1k",
            "microsoft/swin-base-patch4-window7-224",
            87_768_224,
            224,
            30.9,
            _APACHE,
            _SWIN,
        ),
        ("convnext_tiny_1k", "facebook/convnext-tiny-224", 28_589_128, 224, 8.9, _APACHE, _1K),
        ("convnext_base_1k", "facebook/convnext-base-224", 88_591_464, 224, 30.7, _APACHE, _1K),
        (
            "segformer_b0_ade",
            "nvidia/segformer-b0-finetuned-ade-512-512",
            3_752_694,
            512,
            11.0,
            "other",
            _MIX,
        ),
        (
            "segformer_b2_ade",
            "nvidia/segformer-b2-finetuned-ade-512-512",
            27_461_974,
            512,
            73.0,
            "other",
            _MIX,
        ),
    )
)
_BY_ALIAS = {model.alias: model for model in PRETRAINED}


def find_pretrained(alias: str) -> Pretrained | None:
    """The model of an alias, None if there is none."""
    return _BY_ALIAS.get(alias)
