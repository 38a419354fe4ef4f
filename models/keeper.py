"""What a training leaves behind while it runs: checkpoints, the best epoch's weights, logs and curves."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from .. import _compat  # noqa: F401

# isort: split
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from ..datasets.files import atomic_path, write_atomic
from ..errors import FormatError, TidemarkError
from .weights import full_disk, save_tensors

LAST_NAME = "last.ckpt"
CURVES_NAME = "curves.png"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear whole or not at all, and are read without running anything that lies in them."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        with atomic_path(path) as temporary, full_disk(Path(path)):
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> Any:
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint's tensors and plain values. Raises FormatError when it is damaged or holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds here
        raise FormatError(
            f"cannot be read as a checkpoint ({type(error).__name__})",
            where=path,
            hint="remove it, or set TRAIN.RESUME false, to start this run again",
        ) from None


class Keeper(Checkpoint):
    """Ends every epoch: notes the scores, keeps the best weights, moves ``plateau``, writes ``last.ckpt``, may stop.

    Args:
        folder: the run folder.
        options: the TRAIN node of a configuration, with MONITOR resolved.
        lines: print one line per epoch (where no progress bar is shown).
        leads: this process writes; the others of a distributed training only keep count.

    The best weights lie in ``best-<epoch>.safetensors`` until the run is finished. ``last.ckpt`` says which epoch that
    is, and the file it names is removed only after the next ``last.ckpt`` is in place: a kill at any moment leaves a
    pair that fits together.
    """

    def __init__(self, folder: Path, options: CfgNode, lines: bool = False, leads: bool = True) -> None:
        self.folder, self.options, self.lines, self.leads = folder, options, lines, leads
        self.lower_is_better = options.MONITOR.endswith("loss")
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self.best_score = -math.inf
        self.waited = 0  # epochs without a better score
        self.plateau_waited = 0
        self.seconds = 0.0
        self._start = 0.0
        self._board: Any = None

    def state_dict(self) -> dict[str, Any]:
        names = ("history", "best_epoch", "best_score", "waited", "plateau_waited", "seconds")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done or the patience is used up."""
        patience = self.options.PATIENCE
        return len(self.history) >= self.options.EPOCHS or bool(patience) and self.waited >= patience

    @property
    def best_path(self) -> Path:
        """The best epoch's weights."""
        return self.folder / f"best-{self.best_epoch}.safetensors"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._start = time.perf_counter()
        if not self.leads:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._board = SummaryWriter(str(self.folder / "logs" / "tensorboard"), purge_step=len(self.history))

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        _check_finite(pl_module.best_network, trainer.current_epoch)
        now = time.perf_counter()
        self.seconds, self._start, seconds = self.seconds + now - self._start, now, now - self._start
        row = {
            "epoch": trainer.current_epoch,
            **pl_module.epoch_scores(),
            "lr": float(trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": round(seconds, 3),
        }
        self.history.append(row)
        better = self._judge(row[self.options.MONITOR])
        if not better and self.options.SCHEDULER == "plateau":
            self._plateau(trainer.optimizers)
        if self.leads:
            self._write(row, better, pl_module.best_network)
        if self.finished or len(self.history) % self.options.CHECKPOINT_EVERY == 0:
            trainer.save_checkpoint(self.folder / LAST_NAME)  # every process must call it; the first one writes
            for path in self.folder.glob("best-*.safetensors") if self.leads else ():
                if path != self.best_path:
                    path.unlink()
        trainer.should_stop = trainer.should_stop or self.finished

    def _write(self, row: dict[str, float], better: bool, network: torch.nn.Module) -> None:
        if better:
            save_tensors(network, self.best_path)
        write_atomic(self.folder / "logs" / "metrics.csv", history_csv(self.history))
        for name, value in row.items():
            if name != "epoch" and math.isfinite(value):
                self._board.add_scalar(name, value, row["epoch"])
        if self.lines:
            print(epoch_line(row, self.options.EPOCHS, better), file=sys.stderr, flush=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if self._board is not None:
            self._board.close()
            self._board = None

    def _judge(self, value: float) -> bool:
        """Note whether this epoch is the best so far. A score that is not defined is the worst."""
        score = -math.inf if math.isnan(value) else -value if self.lower_is_better else value
        better = self.best_epoch is None or score > self.best_score
        if better:
            self.best_epoch, self.best_score = int(self.history[-1]["epoch"]), score
        self.waited = 0 if better else self.waited + 1
        self.plateau_waited = 0 if better else self.plateau_waited + 1
        return better

    def _plateau(self, optimizers: list[torch.optim.Optimizer]) -> None:
        # Not torch's ReduceLROnPlateau: Lightning moves that one after the checkpoint, so a resumed run would lag.
        if self.plateau_waited > self.options.PLATEAU_PATIENCE:
            self.plateau_waited = 0
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] *= self.options.PLATEAU_FACTOR


def history_csv(history: list[dict[str, float]]) -> str:
    """One row per epoch; a score that is not defined is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if math.isnan(value) else value for name, value in row.items()} for row in history)
    return text.getvalue()


def epoch_line(row: dict[str, float], epochs: int, better: bool) -> str:
    """``epoch 3/20  train/loss 0.412  val/iou 0.520  41 s  best``."""
    scores = "  ".join(f"{name} {value:.4f}" for name, value in row.items() if "/" in name)
    return f"epoch {int(row['epoch']) + 1}/{epochs}  {scores}  {row['seconds']:.1f} s{'  best' if better else ''}"


def draw_curves(history: list[dict[str, float]], monitor: str, best_epoch: int, path: Path, title: str) -> None:
    """Loss and the monitored score of both splits over the epochs, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    metric = (
        monitor.split("/")[1]
        if not monitor.endswith("loss")
        else next(name.split("/")[1] for name in history[0] if name in ("val/iou", "val/macro_f1", "val/psnr"))
    )
    epochs = [row["epoch"] + 1 for row in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", metric), strict=True):
        for split, color in (("train", "#7a8793"), ("val", "#1f6fb4")):
            axes.plot(
                epochs,
                [row[f"{split}/{name}"] for row in history],
                color=color,
                marker=".",
                label={"train": "training", "val": "validation"}[split],
            )
        axes.axvline(best_epoch + 1, color="#c2571a", linewidth=1, linestyle=":", label="kept")
        axes.set(xlabel="epoch", ylabel={"iou": "IoU", "macro_f1": "macro-F1", "psnr": "PSNR (dB)"}.get(name, name))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.suptitle(title)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _check_finite(network: torch.nn.Module, epoch: int) -> None:
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise TidemarkError(
                f"the weights are not finite after epoch {epoch}",
                where=name,
                hint="the last good checkpoint is kept; lower TRAIN.LR or set TRAIN.CLIP_NORM",
            )
