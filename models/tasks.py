"""What happens in a training step and in a validation step: thin LightningModules around any registered network."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from .. import _compat  # noqa: F401

# isort: split
import lightning.pytorch as lightning

from ..benchmark import metrics
from ..errors import TidemarkError
from .losses import Loss, class_map


class Task(lightning.LightningModule):
    """Loss, optimiser and counts of one network; subclasses say what is lost, counted and scored.

    Args:
        network: takes ``inputs`` by name.
        options: the TRAIN node of a configuration.
        inputs: names of the batch's entries that the network takes.
        seed: with epoch and step it fixes every draw inside the network (dropout).

    A batch has the inputs, float32 (B,C,H,W), and ``index`` int64 (B,).
    """

    def __init__(
        self, network: nn.Module, options: CfgNode, *, inputs: Sequence[str] = ("image",), seed: int = 0
    ) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.inputs, self.seed = tuple(inputs), seed
        self.averaged = Average(network, options.EMA) if options.EMA else None
        self._counts: dict[str, np.ndarray] = {}
        self._losses: dict[str, list[Tensor]] = {}

    @property
    def best_network(self) -> nn.Module:
        """The network that is validated and kept: the running mean of the weights where there is one."""
        return self.network if self.averaged is None else self.averaged.mean

    def answer(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Any:
        """What the network says about a batch."""
        return network(**{name: batch[name] for name in self.inputs})

    def loss_of(self, answer: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss, a scalar."""
        raise NotImplementedError

    def weight_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The share of a batch's loss in the epoch's mean: how many values it is a mean of, a scalar."""
        raise NotImplementedError

    def no_counts(self) -> np.ndarray:
        """What ``counts_of`` adds up to before the first batch."""
        raise NotImplementedError

    def counts_of(self, answer: Any, batch: Mapping[str, Tensor]) -> np.ndarray:
        """What a batch adds to a split's counts."""
        raise NotImplementedError

    def scores(self, counts: np.ndarray) -> dict[str, float]:
        """Scores of one split from its counts."""
        raise NotImplementedError

    def on_train_epoch_start(self) -> None:
        self._counts = {split: self.no_counts() for split in ("train", "val")}
        self._losses = {"train": [], "val": []}

    def on_train_batch_start(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        # Keyed, not continued: a resumed run drops the same units as an undisturbed one.
        step = batch_idx * self.trainer.world_size + self.trainer.global_rank
        torch.manual_seed(draw_key("network", self.seed, self.current_epoch, step))

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        answer = self.answer(self.network, batch)
        loss = self.loss_of(answer, batch)
        if not torch.isfinite(loss):
            place = f"epoch {self.current_epoch}, step {batch_idx}, chips {self._chips(batch)}"
            raise TidemarkError(
                f"the loss is {loss.item()}",
                where=place,
                hint="the last good checkpoint is kept; lower TRAIN.LR, set TRAIN.CLIP_NORM or look at these chips",
            )
        self._count("train", loss, answer, batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        answer = self.answer(self.best_network, batch)
        self._count("val", self.loss_of(answer, batch), answer, batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        stepped = (batch_idx + 1) % self.options.ACCUMULATE == 0 or batch_idx + 1 == self.trainer.num_training_batches
        if self.averaged is not None and stepped:
            self.averaged.update(self.network)

    def on_validation_epoch_end(self) -> None:
        scores = self.scores(summed(self._counts["val"]))
        self.log_dict({f"val/{name}": float(value) for name, value in scores.items()}, prog_bar=True)

    def epoch_scores(self) -> dict[str, float]:
        """``train/loss``, ``val/loss`` and the scores of both splits in the epoch that ends."""
        row = {f"{split}/loss": mean_over_ranks(losses) for split, losses in self._losses.items()}
        row = {name: value for name, value in row.items() if value is not None}
        for split, counts in self._counts.items():
            row |= {f"{split}/{name}": float(value) for name, value in self.scores(summed(counts)).items()}
        return row

    def configure_optimizers(self) -> Any:
        optimizer = make_optimizer(self.network.parameters(), self.options)
        schedule = make_schedule(optimizer, self.options, int(self.trainer.estimated_stepping_batches))
        return optimizer if schedule is None else ([optimizer], [{"scheduler": schedule, "interval": "step"}])

    def _count(self, split: str, loss: Tensor, answer: Any, batch: Mapping[str, Tensor]) -> None:
        weight = self.weight_of(batch).double()
        self._losses[split].append(torch.stack([loss.detach() * weight, weight]))
        with torch.no_grad():
            self._counts[split] += self.counts_of(answer, batch)

    def _chips(self, batch: Mapping[str, Tensor]) -> str:
        names = getattr(self.trainer.train_dataloader, "chip_ids", None)
        chips = [names[i] if names else f"number {i}" for i in batch["index"].tolist()]
        return ", ".join(chips[:64]) + (f" and {len(chips) - 64} more" if len(chips) > 64 else "")


class ClassTask(Task):
    """Logits against integer labels (255 = not counted), which lie in the batch under ``label``.

    Args:
        network, options, inputs, seed: see `Task`; the network gives logits (B,K,...).
        classes: number of classes; a binary segmentation has two, with one logit.
        out_channels: logits.
    """

    label = ""

    def __init__(
        self,
        network: nn.Module,
        options: CfgNode,
        *,
        inputs: Sequence[str] = ("image",),
        classes: int = 2,
        out_channels: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(network, options, inputs=inputs, seed=seed)
        self.classes = classes
        self.loss = Loss(options.LOSS, out_channels, options.POS_WEIGHT, options.CLASS_WEIGHTS, options.LABEL_SMOOTHING)

    def loss_of(self, answer: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The loss that the recipe names."""
        return self.loss(answer, batch[self.label])

    def weight_of(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Its labels that count."""
        return (batch[self.label] != metrics.IGNORE).sum()

    def no_counts(self) -> np.ndarray:
        """int64 (classes, classes)."""
        return np.zeros((self.classes, self.classes), np.int64)

    def counts_of(self, answer: Tensor, batch: Mapping[str, Tensor]) -> np.ndarray:
        """The confusion of a batch."""
        predicted = class_map(answer.detach()).cpu().numpy()
        truth = batch[self.label].to(torch.uint8).cpu().numpy()
        return metrics.confusion(truth, predicted, self.classes)


class SegmentationTask(ClassTask):
    """A class for every pixel; water IoU when binary, else the mean IoU of the classes."""

    label = "mask"

    def scores(self, counts: np.ndarray) -> dict[str, float]:
        if self.classes != 2:
            return {"iou": metrics.mean_iou(counts), "accuracy": metrics.overall_accuracy(counts)}
        return {
            "iou": metrics.water_iou(counts),
            "precision": metrics.class_precision(counts)[1],
            "recall": metrics.class_recall(counts)[1],
        }


class ClassificationTask(ClassTask):
    """A class for every chip; macro-F1."""

    label = "label"

    def scores(self, counts: np.ndarray) -> dict[str, float]:
        return {"macro_f1": metrics.macro_f1(counts), "accuracy": metrics.overall_accuracy(counts)}


class Average(nn.Module):
    """Exponential running mean of a network's weights and statistics.

    The decay rises as (1 + n) / (10 + n) to its value, so that the first random weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.mean = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the mean towards the network's present weights."""
        count = int(self.updates.add_(1))
        weight = 1 - min(self.decay, (1 + count) / (10 + count))
        mine, theirs = self.mean.state_dict(), network.state_dict()
        floats = [key for key, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[key] for key in floats], [theirs[key] for key in floats], weight)
        for key in mine.keys() - set(floats):
            mine[key].copy_(theirs[key])

    def train(self, mode: bool = True) -> Average:
        """Stays in evaluation mode: a mean has no training steps of its own."""
        return super().train(False)


def summed(counts: np.ndarray) -> np.ndarray:
    """Counts (or float64 sums) over all processes of a distributed training; each of them must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counts
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    total = torch.from_numpy(counts.copy()).to(device)
    torch.distributed.all_reduce(total)
    return total.cpu().numpy()


def mean_over_ranks(losses: Sequence[Tensor]) -> float | None:
    """Weighted mean of the batches' losses over all processes, from (loss * weight, weight) of each.

    None where there are no batches, 0 where nothing in them counts.
    """
    own = torch.stack(list(losses)).sum(0).tolist() if losses else [0.0, 0.0]
    total, weight, batches = summed(np.array([*own, len(losses)], np.float64))
    return float(total / max(1.0, weight)) if batches else None


def draw_key(name: str, seed: int, epoch: int, step: int) -> int:
    """A seed for one kind of draw at one step."""
    key = np.random.SeedSequence([zlib.crc32(name.encode()), seed, epoch, step])
    return int(key.generate_state(1, np.uint64)[0])


def make_optimizer(parameters: Any, options: CfgNode) -> torch.optim.Optimizer:
    """The optimiser that TRAIN.OPTIMIZER names."""
    shared = {"lr": options.LR, "weight_decay": options.WEIGHT_DECAY}
    if options.OPTIMIZER == "sgd":
        return torch.optim.SGD(parameters, momentum=options.MOMENTUM, **shared)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[options.OPTIMIZER](parameters, **shared)


def make_schedule(optimizer: torch.optim.Optimizer, options: CfgNode, steps: int) -> Any:
    """A schedule that moves every step; None for ``none`` and for ``plateau``, which moves by the epoch's score."""
    if options.SCHEDULER == "onecycle":
        share = options.WARMUP
        if abs(share * steps - 1) < 1e-6:  # torch divides by share * steps - 1
            share = (1 + 1e-6) / steps
        cycles = options.OPTIMIZER != "sgd"  # else torch would put its own numbers in place of TRAIN.MOMENTUM
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, options.LR, total_steps=steps, pct_start=share, cycle_momentum=cycles
        )
    if options.SCHEDULER == "cosine":
        rising = int(options.WARMUP * steps)

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / (rising + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return None
