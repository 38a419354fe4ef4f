"""A mean and a standard deviation for every value: from a Gaussian head, from dropout, or from several networks.

The answers of passes or networks are one mixture: its mean is the mean of their means, its variance the mean of their
variances plus the variance of their means (Lakshminarayanan et al. 2017, arXiv 1612.01474). What dropout and ensembles
say is the networks' disagreement alone, several times smaller than their error: it orders pixels and needs the factors
that ``tidemark uncertainty`` finds on the validation split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ... import _compat  # noqa: F401
from ...errors import InputError, WeightsError
from ..tasks import draw_key
from ..weights import Pretrained
from .harmonizer import Harmonizer
from .meaning import SigmaScale
from .parts import GaussianOutput

METHODS = ("gaussian", "mc-dropout", "ensemble")
PASSES = 20  # of mc-dropout
SIGMA_LEVEL = 0.68  # what mean ± sigma covers once it is scaled


class Predictive:
    """Mean and standard deviation of the reflectance by one method.

    Args:
        members: one network with its resampling; for ``ensemble`` at least two.
        method: ``gaussian``: the variance of the network's own head; ``mc-dropout``: ``passes`` passes with dropout;
            ``ensemble``: the networks' answers.
        passes: of ``mc-dropout``, at least two.
        seed: of the dropout's draws, with the key of a batch.
        scale: factors of sigma; None: as it is.

    Raises:
        InputError: a network without what the method needs, or too few networks or passes.
    """

    def __init__(
        self,
        members: Sequence[Harmonizer],
        method: str,
        *,
        passes: int = PASSES,
        seed: int = 0,
        scale: SigmaScale | None = None,
    ) -> None:
        if method not in METHODS:
            raise InputError(f"no method {method!r} of uncertainty", hint=f"there is {', '.join(METHODS)}")
        if (len(members) > 1) != (method == "ensemble"):
            wanted = "at least two networks" if method == "ensemble" else "one network"
            raise InputError(f"{method} needs {wanted}, found {len(members)}")
        self.members, self.method, self.seed, self.scale = [m.eval() for m in members], method, seed, scale
        self.passes = passes if method == "mc-dropout" else 1
        if method == "mc-dropout":
            if passes < 2:
                raise InputError(f"mc-dropout needs at least two passes, found {passes}")
            if not dropouts(members[0]):
                raise InputError("the network has no dropout", hint="train it with MODEL.ARGS.dropout 0.1")

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, pan: Tensor, grid_image: Tensor, grid_pan: Tensor, size: tuple[int, int], key: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of a batch.

        Args:
            image, pan, grid_image, grid_pan, size: see ``Harmonizer``.
            key: number of the batch; the same seed, key and batch drop the same units.

        Returns:
            float32 (B,C,H,W) each; the mean at least 0 as reflectance is. Scaled, mean ± sigma covers 68 % of the
            truth, and ``interval`` other shares.

        Raises:
            InputError: ``gaussian`` with a network that answers no variance.
        """
        batch = (image, pan, grid_image, grid_pan, size)
        if self.method == "mc-dropout":
            answers = self._passes(batch, key)
        else:
            answers = (member(*batch) for member in self.members)
        mean, variance = moments(answers, need_variance=self.method == "gaussian")
        sigma = variance.sqrt()
        if self.scale is not None:
            sigma = sigma * sigma.new_tensor(self.scale.at(SIGMA_LEVEL)).view(-1, 1, 1)
        return mean.clamp_min(0), sigma

    def interval(self, level: float) -> tuple[float, ...]:
        """For each band how many (scaled) sigmas cover this share, one of the scale's levels."""
        if self.scale is None:
            raise InputError("sigma is not scaled", hint="run `tidemark uncertainty` first")
        return tuple(a / b for a, b in zip(self.scale.at(level), self.scale.at(SIGMA_LEVEL), strict=True))

    def _passes(self, batch: tuple, key: int) -> Iterator[Tensor | GaussianOutput]:
        device = batch[0].device
        with dropping(self.members[0]), torch.random.fork_rng([device] if device.type == "cuda" else []):
            for number in range(self.passes):
                torch.manual_seed(draw_key("mc-dropout", self.seed, key, number))
                yield self.members[0](*batch)


def calibrated(pretrained: Sequence[Pretrained], members: Sequence[Harmonizer]) -> Predictive:
    """The uncertainty that these weights were calibrated for.

    Args:
        pretrained: one, or those of an ensemble in any order.
        members: their networks with the resampling.

    Raises:
        WeightsError: ``tidemark uncertainty`` has not seen these weights, or saw them with others.
    """
    shas = [one.weights_sha256 for one in pretrained]
    scales = [one.harmonization.sigma for one in pretrained if one.harmonization and one.harmonization.sigma]
    found = next((scale for scale in scales if sorted(scale.members) == sorted(shas)), None)
    if found is None:
        names = ", ".join(dict.fromkeys(one.name for one in pretrained))
        raise WeightsError(
            f"the uncertainty of {'these ' + str(len(shas)) + ' weights' if len(shas) > 1 else 'these weights'} "
            f"({names}) was not calibrated",
            hint=f"run `tidemark uncertainty RUN{' RUN…' if len(shas) > 1 else ''} --method {'|'.join(METHODS)}`",
        )
    return Predictive(members, found.method, passes=max(2, found.passes), scale=found)


def moments(answers: Iterable[Tensor | GaussianOutput], need_variance: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and variance of the mixture of some answers, one held at a time.

    The variance of the means is the unbiased one; with one answer it is 0. Answers without a variance count as exact.

    Raises:
        InputError: ``need_variance`` and an answer without one.
    """
    count, mean, squares, variance = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for answer in answers:
        gaussian = isinstance(answer, GaussianOutput)
        if need_variance and not gaussian:
            raise InputError("the network answers no variance", hint="take aunet-gaussian, mc-dropout or an ensemble")
        value = (answer.mean if gaussian else answer).float()
        count += 1
        change = value - mean.to(value.device)
        mean = mean.to(value.device) + change / count
        squares = squares.to(value.device) + change * (value - mean)
        if gaussian:
            variance = variance.to(value.device) + answer.variance.float()
    return mean, variance.to(mean.device) / count + squares / max(1, count - 1)


def dropouts(network: nn.Module) -> list[nn.Module]:
    """The layers of a network that drop something."""
    kinds = (nn.Dropout, nn.Dropout2d)
    return [module for module in network.modules() if isinstance(module, kinds) and module.p > 0]


@contextmanager
def dropping(network: nn.Module) -> Iterator[None]:
    """Dropout as in training, everything else as in evaluation."""
    layers = dropouts(network)
    try:
        for layer in layers:
            layer.train()
        yield
    finally:
        for layer in layers:
            layer.eval()
