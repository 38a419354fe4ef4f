"""Training losses as functions of logits and integer labels, 255 never counts; and the classes that logits mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import _compat  # noqa: F401
from ..benchmark.metrics import IGNORE
from ..errors import ConfigError

LOSSES = {"binary": ("bce", "dice", "bce_dice"), "multiclass": ("ce", "dice")}


class Loss:
    """The loss that a recipe names, checked once against the number of logits.

    Args:
        name: ``bce``, ``dice``, ``bce_dice`` for one logit; ``ce``, ``dice`` for several; ``auto``: bce or ce.
        out_channels: logits per pixel or patch.
        pos_weight: bce: factor on the loss of positive pixels.
        class_weights: ce: factor for each class, or none.
        label_smoothing: s: a target t becomes (1 - s) t + s / classes (0.2 gives the targets 0.1 and 0.9 when binary).

    Raises:
        ConfigError: a loss that does not go with the number of logits or with another argument, or not one weight per
            class.
    """

    def __init__(
        self,
        name: str,
        out_channels: int,
        pos_weight: float = 1.0,
        class_weights: Sequence[float] = (),
        label_smoothing: float = 0.0,
    ) -> None:
        kind = "binary" if out_channels == 1 else "multiclass"
        self.name = LOSSES[kind][0] if name == "auto" else name
        if self.name not in LOSSES[kind]:
            raise ConfigError(
                f"the loss {name} does not go with {out_channels} logits",
                where="TRAIN.LOSS",
                hint=f"take {' or '.join(LOSSES[kind])}",
            )
        if class_weights and (self.name != "ce" or len(class_weights) != out_channels):
            raise ConfigError(
                f"{len(class_weights)} weights for the loss {self.name} with {out_channels} logits",
                where="TRAIN.CLASS_WEIGHTS",
                hint="ce takes one weight per class, the others none",
            )
        if pos_weight != 1 and self.name not in ("bce", "bce_dice"):
            raise ConfigError(
                f"the loss {self.name} has no POS_WEIGHT",
                where="TRAIN.POS_WEIGHT",
                hint="take bce, or CLASS_WEIGHTS with ce",
            )
        if label_smoothing and self.name == "dice":
            raise ConfigError("dice smooths no labels", where="TRAIN.LABEL_SMOOTHING", hint="take ce, bce or bce_dice")
        self.pos_weight, self.class_weights, self.smoothing = pos_weight, tuple(class_weights), label_smoothing

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss.

        Args:
            logits: (B,K,H,W) or (B,K) of any float type; computed in float32.
            labels: int64 (B,H,W) or (B,), 255 = not counted.

        Returns:
            float32 scalar, 0 (with gradient 0) where nothing counts.
        """
        logits, known = logits.float(), labels != IGNORE
        if self.name == "ce":
            return self._cross_entropy(logits, labels)
        if logits.shape[1] > 1:
            return _soft_dice_classes(logits, labels, known)
        logits, target = logits[:, 0], (labels == 1).float()
        loss = logits.new_zeros(())
        if self.name != "dice":
            loss = loss + self._binary_cross_entropy(logits, target, known)
        if self.name != "bce":
            loss = loss + _soft_dice(logits.sigmoid(), target, known)
        return loss

    def _binary_cross_entropy(self, logits: Tensor, target: Tensor, known: Tensor) -> Tensor:
        smooth = target * (1 - self.smoothing) + self.smoothing / 2
        weight = None if self.pos_weight == 1 else logits.new_tensor(self.pos_weight)
        each = functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none", pos_weight=weight)
        return (each * known).sum() / known.sum().clamp(min=1)

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        weight = logits.new_tensor(self.class_weights) if self.class_weights else None
        total = functional.cross_entropy(
            logits, labels, weight, ignore_index=IGNORE, reduction="sum", label_smoothing=self.smoothing
        )
        known = labels != IGNORE
        count = known.sum() if weight is None else (weight[labels * known] * known).sum()
        return total / count.clamp(min=1e-12)


def _soft_dice(probability: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """1 - 2 Σpt / (Σp + Σt) over all counted pixels of the batch (Milletari et al. 2016, V-Net, with plain sums)."""
    probability, target = probability * known, target * known
    # The 1 lets a batch without water and without predicted water have loss 0.
    return 1 - (2 * (probability * target).sum() + 1) / (probability.sum() + target.sum() + 1)


def _soft_dice_classes(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    probability = logits.softmax(1)
    return torch.stack(
        [_soft_dice(probability[:, k], (labels == k).float(), known) for k in range(logits.shape[1])]
    ).mean()


def class_map(logits: Tensor) -> Tensor:
    """uint8 classes (B,...) from logits (B,K,...): the sign of one logit, else the largest of several."""
    return (logits[:, 0] > 0).to(torch.uint8) if logits.shape[1] == 1 else logits.argmax(1).to(torch.uint8)
