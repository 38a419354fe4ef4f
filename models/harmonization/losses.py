"""Losses of reflectance, weighted sums of named terms; a pixel that is not valid never counts."""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor
from torch.nn import functional

from ... import _compat  # noqa: F401
from ...benchmark.reflectance import SSIM_C1, SSIM_C2, SSIM_TAPS
from ...errors import ConfigError, InputError
from .parts import MIN_VARIANCE, GaussianOutput, GuidedOutput

TERMS = ("l1", "ssim", "mixed-gradient", "gaussian-nll")
GRADIENT_WEIGHT = 0.1  # λ of the mixed gradient error (Lu and Chen 2019, arXiv 1911.09428)
DETAIL_WEIGHT = 0.1  # of the panchromatic detail that a guided network answers in training
_TERM = re.compile(r"(?:(?P<weight>\d+(?:\.\d*)?|\.\d+)\*)?(?P<name>[a-z0-9-]+)")


class HarmonizationLoss:
    """The loss that a recipe names.

    Args:
        name: terms joined by ``+``, each with a factor where wanted, such as ``l1`` or ``0.8*l1+0.2*ssim``:

            ``l1`` mean absolute error;
            ``ssim`` 1 - mean SSIM (11 × 11 Gaussian windows of σ 1.5, data range 1, as the evaluator has it);
            ``mixed-gradient`` squared error plus 0.1 times that of the Sobel gradient's magnitude;
            ``gaussian-nll`` ½(log v + (y - μ)²/v), v at least 1e-6, for networks that answer mean and variance.

    Raises:
        ConfigError: not such a sum, an unknown term (with the valid ones), one named twice, or a factor of 0.
    """

    def __init__(self, name: str) -> None:
        self.name, self.weights = name, _parse(name)

    def __call__(self, output: Tensor | GaussianOutput | GuidedOutput, target: Tensor, valid: Tensor) -> Tensor:
        """The loss of one batch, computed in float32 (or float64 where the target has it).

        Args:
            output: (B,C,H,W) of a network, or its named parts.
            target: float (B,C,H,W) reflectance.
            valid: bool (B,H,W).

        Returns:
            scalar; 0 with gradient 0 where nothing is valid.

        Raises:
            ConfigError: ``gaussian-nll`` for a network without a variance, or a variance that no term uses.
            InputError: shapes that differ.
        """
        gaussian = isinstance(output, GaussianOutput)
        if gaussian != ("gaussian-nll" in self.weights):
            has, hint = ("a", "gaussian-nll") if gaussian else ("no", "l1")
            raise ConfigError(
                f"the network answers {has} variance, and the loss is {self.name}",
                where="TRAIN.LOSS",
                hint=f"take {hint}",
            )
        mean = (output if isinstance(output, Tensor) else output.mean).to(target.dtype)
        if mean.shape != target.shape or valid.shape != target[:, 0].shape:
            shapes = f"{tuple(mean.shape)}, target {tuple(target.shape)} and valid {tuple(valid.shape)}"
            raise InputError(f"prediction {shapes} do not fit")
        known = valid[:, None]
        # What is not valid may be anything, NaN too, and 0 · NaN would still be NaN.
        target, mean = torch.where(known, target, 0.0), torch.where(known, mean, 0.0)
        found = {
            "l1": lambda: _mean((mean - target).abs(), known),
            "ssim": lambda: ssim_loss(mean, target, valid),
            "mixed-gradient": lambda: mixed_gradient(mean, target, valid),
            "gaussian-nll": lambda: gaussian_nll(mean, output.variance.to(target.dtype), target, known),
        }
        loss = sum(weight * found[term]() for term, weight in self.weights.items())
        if isinstance(output, GuidedOutput):
            loss = loss + DETAIL_WEIGHT * _mean((output.detail - output.wanted).abs(), _inside(valid))
        return loss


def gaussian_nll(mean: Tensor, variance: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """Mean of ½(log v + (y - μ)²/v), without the constant ½ log 2π."""
    variance = torch.where(known, variance, 1.0).clamp(min=MIN_VARIANCE)
    return _mean(0.5 * (variance.log() + (target - mean).square() / variance), known)


def mixed_gradient(mean: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean squared error of values plus 0.1 times that of gradient magnitudes, the latter where 3 × 3 pixels are valid.

    The released loss took ``.item()`` of it and so had no gradient at all.
    """
    values = _mean((mean - target).square(), valid[:, None])
    edges = _mean((_sobel(mean) - _sobel(target)).square(), _inside(valid)[..., 1:-1, 1:-1])
    return values + GRADIENT_WEIGHT * edges


def ssim_loss(mean: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """1 - SSIM, averaged over the windows without an invalid pixel; 0 where there is none."""
    size = len(SSIM_TAPS)
    if min(mean.shape[-2:]) < size:
        raise InputError(f"SSIM needs images of at least {size} × {size} pixels", hint="raise AUGMENT.CROP")
    taps = mean.new_tensor(SSIM_TAPS)
    whole = -functional.max_pool2d(-valid[:, None].to(mean.dtype), size, stride=1)
    products = (mean, target, mean * mean, target * target, mean * target)
    x, y, xx, yy, xy = _filtered(torch.cat(products, 1), taps).chunk(5, 1)
    covariance, variances = xy - x * y, xx - x * x + yy - y * y
    similarity = (2 * x * y + SSIM_C1) * (2 * covariance + SSIM_C2)
    similarity = similarity / ((x * x + y * y + SSIM_C1) * (variances + SSIM_C2))
    return _mean(1 - similarity, whole > 0)


def _filtered(x: Tensor, taps: Tensor) -> Tensor:
    channels = x.shape[1]
    row = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return functional.conv2d(functional.conv2d(x, row, groups=channels), row.mT, groups=channels)


def _sobel(x: Tensor) -> Tensor:
    """Magnitude of the Sobel gradient of every band, (B,C,H-2,W-2)."""
    channels = x.shape[1]
    across = x.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(channels, 1, 3, 3)
    squares = sum(functional.conv2d(x, kernel, groups=channels).square() for kernel in (across, across.mT))
    return (squares + 1e-12).sqrt()  # a root of exactly 0 has no gradient


def _inside(valid: Tensor) -> Tensor:
    """bool (B,1,H,W): the pixel and its eight neighbours (beyond the image, none) are valid."""
    return -functional.max_pool2d(-valid[:, None].float(), 3, stride=1, padding=1) > 0


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the values whose pixel (B,1,H,W) is known."""
    count = known.sum() * (values.shape[1] // known.shape[1])
    return torch.where(known, values, 0.0).sum() / count.clamp(min=1)


def _parse(name: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in name.replace(" ", "").split("+"):
        found = _TERM.fullmatch(part)
        if not found or found["name"] not in TERMS:
            raise ConfigError(
                f"no loss {part!r}", where="TRAIN.LOSS", hint=f"there is {', '.join(TERMS)}, as in 0.8*l1+0.2*ssim"
            )
        weight = float(found["weight"] or 1)
        if found["name"] in weights or not 0 < weight < math.inf:
            raise ConfigError(f"{part!r} is there twice or has the factor 0", where="TRAIN.LOSS")
        weights[found["name"]] = weight
    return weights
