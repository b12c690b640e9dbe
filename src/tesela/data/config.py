"""Settings of data and augmentation, without torch.

Odd: ``workers`` and ``cache`` never change a bit of what is delivered, only how fast.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from tesela.core.address import is_address, local_text, refuse_credentials
from tesela.core.errors import ConfigError
from tesela.core.pathnames import path_text
from tesela.imaging.limits import FORMATS, LOCAL_LIMITS, DecodeLimits, local_limits


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where images come from, how they are split and read."""

    source: str = ""
    """A folder of class folders, IDX files, Parquet files, shards, a CSV/JSONL manifest, or digits; of shards
    and Parquet files also an address, such as s3://bucket/shards."""
    val_fraction: float = 0.1
    """Share of the images cut off for validation where the source has no such split; 0 for none."""
    test_fraction: float = 0.1
    """Share cut off for testing where the source has no such split; 0 for none."""
    split_seed: int = 0
    """Another number cuts the splits differently."""
    subset: int | None = None
    """Train on this many images only, balanced over the classes; a larger subset contains the smaller."""
    classes: tuple[str, ...] = ()
    """Use images of these classes only, named by label or by number from 0; all where none is named."""
    per_class: int | None = None
    """Train on at most this many images of each class, drawn by split_seed; a larger number contains the
    smaller."""
    workers: int | Literal["auto"] = "auto"
    """Processes that read images; 0 reads in the main process."""
    cache: Literal["auto", "ram", "none"] = "auto"
    """ram keeps images in memory at the model's size, auto where they fit; random_resized_crop of larger
    images decodes them each time, whatever is said here."""
    channels: int | Literal["auto"] = "auto"
    """Channels that the model sees of each image: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha (255 where
    an image has none); auto is 1 where all images are grey, else 3, with transparency laid over white."""
    mask_names: tuple[str, ...] = ()
    """Names of the values 0, 1, 2 ... of masks; by default classes.csv beside the data says them."""
    mask_ignore: tuple[int, ...] = ()
    """Values of masks that belong to no class; 255 is one where classes are named here."""
    reduce_zero: bool = False
    """Value 0 of masks belongs to no class, and the names begin at 1."""
    max_unreadable: float = 0.01
    """Largest share of unreadable training images; above it training refuses."""
    formats: tuple[str, ...] = FORMATS
    """The only image formats to open; others count as unreadable."""
    max_pixels: int = LOCAL_LIMITS.max_pixels
    """Most pixels of an image; a larger one counts as unreadable."""

    def __post_init__(self) -> None:
        if not self.source.isascii() and any("\ud800" <= sign <= "\udfff" for sign in self.source):
            object.__setattr__(self, "source", path_text(self.source))  # goes into files that are UTF-8
        object.__setattr__(self, "source", local_text(self.source))
        if is_address(self.source):
            refuse_credentials(self.source)
        for name, share in (("val_fraction", self.val_fraction), ("test_fraction", self.test_fraction)):
            if not 0 <= share < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, not {share}", hint="0.1 is usual")
        if self.val_fraction + self.test_fraction >= 1:
            raise ConfigError(
                "val_fraction and test_fraction leave nothing to train on", hint="keep their sum below 1"
            )
        if not 0 <= self.max_unreadable <= 1:
            raise ConfigError(
                f"max_unreadable is a share, not {self.max_unreadable}", hint="give a number from 0 to 1"
            )
        for value in self.mask_ignore:
            if not 0 <= value <= 255:
                raise ConfigError(f"masks have no value {value}", hint="give numbers from 0 to 255")
        if self.subset is not None and self.subset < 1:
            raise ConfigError(f"a subset of {self.subset} images trains nothing", hint="give 1 or more")
        if self.per_class is not None and self.per_class < 1:
            raise ConfigError(f"{self.per_class} images per class train nothing", hint="give 1 or more")
        if self.per_class is not None and self.subset is not None:
            raise ConfigError("subset and per_class exclude one another", hint="give one of them")
        if self.channels != "auto" and not 1 <= self.channels <= 4:
            raise ConfigError(
                f"images of files have 1 to 4 channels, not {self.channels}",
                hint="use 1, 2, 3 or 4; other numbers come as arrays, from Python",
            )
        if self.workers != "auto" and self.workers < 0:
            raise ConfigError(f"workers must be 0 or more, not {self.workers}", hint="use auto")
        object.__setattr__(self, "formats", self.limits.formats)

    @property
    def limits(self) -> DecodeLimits:
        """Limits within which images are decoded.

        Raises:
            ConfigError: an unknown format, or less than a pixel.
        """
        return local_limits(self.formats, self.max_pixels)


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """Settings of the augmentation of training images; all draws are functions of (seed, epoch, index)."""

    preset: Literal["auto", "none"] = "auto"
    """auto turns flips, crops and colour on for photographs where nothing else is set here."""

    hflip: float = 0.0
    """Probability of a left-right flip."""
    vflip: float = 0.0
    """Probability of an upside-down flip."""
    crop_padding: int = 0
    """Pad by this many pixels and crop back at a random place."""
    crop_fill: Literal["reflect", "zero"] = "reflect"
    """What the padding holds."""
    random_resized_crop: bool = False
    """Cut out a random part and resize it to the model's size."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Share of the area that random_resized_crop keeps."""
    crop_aspect: tuple[float, float] = (0.75, 1.3333333333333333)
    """Width : height of that part in pixels, whatever the image's own."""
    color_jitter: float = 0.0
    """Strength of changes in brightness, contrast and saturation (0.4 is usual), and a tenth of it in hue."""
    rotation: float = 0.0
    """Largest rotation in degrees, either way."""
    translation: float = 0.0
    """Largest shift as a share of the side, either way."""
    zoom: float = 0.0
    """Largest change of scale, either way (0.1: from 0.9 to 1.1)."""
    shear: float = 0.0
    """Largest shear in degrees, either way."""
    perspective: float = 0.0
    """Largest move of a corner as a share of half the side."""
    randaugment: int = 0
    """Operations of RandAugment per image (arXiv 1909.13719); 2 is usual, 0 for off."""
    magnitude: int = 9
    """Strength of RandAugment's operations, 0..30."""
    trivialaugment: bool = False
    """One operation of random strength per image (arXiv 2103.10158)."""
    erasing: float = 0.0
    """Probability that a rectangle is overwritten with noise (arXiv 1708.04896)."""
    erasing_area: tuple[float, float] = (0.02, 0.33)
    """Share of the area that is erased."""
    mixup: float = 0.0
    """Alpha of MixUp's Beta distribution (arXiv 1710.09412); 0 for off, 0.8 is usual for ViTs."""
    cutmix: float = 0.0
    """Alpha of CutMix's Beta distribution (arXiv 1905.04899); 0 for off, 1.0 is usual."""
    mix_probability: float = 1.0
    """Probability that a batch is mixed at all; with both, each batch takes one of them by even chance."""

    def __post_init__(self) -> None:
        shares = ("hflip", "vflip", "erasing", "mix_probability", "perspective", "translation", "zoom")
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name} is a share, not {getattr(self, name)}", hint="give a number from 0 to 1"
                )
        for name in ("mixup", "cutmix", "crop_padding", "color_jitter", "rotation", "shear", "randaugment"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} must be 0 or more, not {getattr(self, name)}", hint="0 turns it off"
                )
        if not 0 <= self.magnitude <= 30:
            raise ConfigError(f"magnitude must be 0..30, not {self.magnitude}", hint="9 is usual")
        if self.randaugment and self.trivialaugment:
            raise ConfigError(
                "randaugment and trivialaugment exclude each other", hint="turn one of them off"
            )
        for name in ("crop_scale", "erasing_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ConfigError(
                    f"{name} must rise within 0..1, not {low},{high}",
                    hint="give two shares, the smaller first",
                )
        if not 0 < self.crop_aspect[0] <= self.crop_aspect[1]:
            raise ConfigError("crop_aspect must rise", hint="0.75,1.3333 is usual")

    @property
    def only_flips(self) -> bool:
        """Whether an image has no other views than itself and its flips."""
        plain = AugmentConfig(hflip=self.hflip, vflip=self.vflip)
        silent = {  # values that matter only where something else is on
            name: getattr(self, name)
            for name in (
                "crop_fill",
                "crop_scale",
                "crop_aspect",
                "magnitude",
                "erasing_area",
                "mix_probability",
                "preset",
            )
        }
        return dataclasses.replace(plain, **silent) == self

    @property
    def mixes(self) -> bool:
        """Whether targets become soft."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mix_probability > 0
