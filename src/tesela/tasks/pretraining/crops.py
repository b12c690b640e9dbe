"""Multi-crop: large and small crops of a batch, as a function of (seed, step, image, crop).

Each crop is cut out by one bilinear resampling and, for half of them, mirrored. Colours change by one affine
map per crop: brightness, contrast and saturation, and for a fifth of them greyscale; as all of these are
linear in the colour, they are multiplied into one 3 x 3 matrix and an offset.

Odd: values are not clipped between the colour changes, nor at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tesela.data.augment.geometry import crop_boxes
from tesela.imaging.color import LUMA
from tesela.imaging.spec import ImageSpec
from tesela.tasks.objective import Draw

#: Largest change of brightness, contrast and saturation, and how often colours are changed at all.
JITTER, JITTERED, GREYED = (0.4, 0.4, 0.2), 0.8, 0.2
ASPECT = (3 / 4, 4 / 3)


def random_crops(
    images: Tensor,
    indices: Tensor,
    draw: Draw,
    *,
    number: int,
    area: tuple[float, float],
    size: tuple[int, int],
    spec: ImageSpec,
) -> Tensor:
    """One crop (B, C, h, w) of each image, augmented and normalised.

    Args:
        images: (B, C, H, W), normalised.
        indices: (B,) numbers of the images.
        draw: random numbers of the step.
        number: of the crop, so that each has its own random numbers.
        area: smallest and largest share of the image's area.
        size: (h, w).
        spec: of the images.
    """
    height, width = images.shape[2:]
    sizes = torch.tensor([[height, width]]).expand(len(images), 2).numpy()
    boxes = crop_boxes(sizes, draw(indices, f"crop {number}", 22).cpu().numpy(), area=area, aspect=ASPECT)
    top, left, high, wide = torch.from_numpy(boxes).to(images.device, torch.float32).unbind(1)
    mirrored = draw(indices, f"mirror {number}")[:, 0] < 0.5
    sign = torch.where(mirrored, -1.0, 1.0).to(images)
    theta = images.new_zeros(len(images), 2, 3)
    theta[:, 0, 0], theta[:, 0, 2] = sign * wide / width, (2 * left + wide) / width - 1
    theta[:, 1, 1], theta[:, 1, 2] = high / height, (2 * top + high) / height - 1
    grid = F.affine_grid(theta, [len(images), images.shape[1], *size], align_corners=False)
    views = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return recolored(views, draw(indices, f"color {number}", 5).to(images), spec)


def recolored(views: Tensor, draws: Tensor, spec: ImageSpec) -> Tensor:
    """Views (B, C, h, w), normalised, with other colours.

    Args:
        views: grey ones change in brightness and contrast alone.
        draws: (B, 5) in 0..1: whether, brightness, contrast, saturation, greyscale.
        spec: of the views.
    """
    channels = views.shape[1]
    mean, std = (torch.tensor(part).to(views) for part in (spec.mean, spec.std))
    grey = torch.tensor(LUMA if channels == 3 else (1.0,)).to(views)
    on = (draws[:, 0] < JITTERED).to(views)
    bright, contrast, saturation = (
        1 + on * (2 * draws[:, place + 1] - 1) * JITTER[place] for place in range(3)
    )
    saturation = torch.where(draws[:, 4] < GREYED, torch.zeros_like(saturation), saturation)
    middle = ((views.mean((2, 3)) * std + mean) * grey).sum(1) * bright  # of each view, after brightness
    # saturation after contrast after brightness: colour -> A colour + b
    identity = torch.eye(channels).to(views)
    mixing = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * grey
    matrix = mixing * (bright * contrast)[:, None, None]
    offset = ((1 - contrast) * middle)[:, None].expand(-1, channels)  # grey, which saturation leaves alone
    # the same for normalised colours
    matrix = matrix * std / std[:, None]
    plain = (matrix * (mean / std)).sum(2) + offset / std - mean / std
    return torch.einsum("bij,bjhw->bihw", matrix, views) + plain[:, :, None, None]
