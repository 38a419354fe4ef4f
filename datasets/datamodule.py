"""Lightning's view of a data set: batches from ``ChipLoader``, scaled, normalised and augmented on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _compat  # noqa: F401

# isort: split
from lightning.pytorch import LightningDataModule

from ..errors import InputError
from .augmentation import AugmentOptions, augment
from .loader import ChipLoader
from .spec import load_manifest
from .transforms import IGNORE, Preprocess, image_array


class ChipDataModule(LightningDataModule):
    """Train, validation and test batches of one data set.

    The task gets ``image`` float32 (B, C', H, W), normalised and 0 where there is no data; ``mask`` int64 (B, H, W)
    with 255 where a pixel has no label or no data, or ``label`` int64 (B,); ``valid`` bool (B, H, W); and ``index``
    int64 (B,), the chips' numbers in the split. Training batches are shuffled and augmented, each draw keyed by seed,
    epoch and the batch's number over all ranks, so that a resumed run goes on as if it had not stopped.

    Args:
        root: the data set's folder, ``<root>/<name>/<version>``.
        batch_size: chips per batch on each rank.
        preprocess: from stored values to network input; the same module goes with the weights.
        augment: what to vary in training batches; nothing by default.
        train_split, val_split, test_split: names of the splits.
        seed: of shuffling and augmentation.
        drop_last: leave out a last training batch that is not full (batch statistics of one chip are none).
        checksum: compare every chip with its stored checksum.
        threads: threads that read, per loader.
        prefetch: batches read ahead.

    Raises:
        InputError: the task is neither segmentation nor classification, or ``preprocess`` was made for other bands.
    """

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
        preprocess: Preprocess,
        augment: AugmentOptions | None = None,
        *,
        train_split: str = "train",
        val_split: str = "val",
        test_split: str = "test",
        seed: int = 0,
        drop_last: bool = False,
        checksum: bool = True,
        threads: int = 2,
        prefetch: int = 2,
    ) -> None:
        super().__init__()
        self.root, self.batch_size, self.preprocess, self.augment = Path(root), batch_size, preprocess, augment
        self.splits = {"train": train_split, "val": val_split, "test": test_split}
        self.seed, self.drop_last = seed, drop_last
        self._options = {"checksum": checksum, "threads": threads, "prefetch": prefetch}
        self.training_loader: ChipLoader | None = None
        self.manifest = load_manifest(root)
        self.image = image_array(self.manifest)
        self.label = self.manifest.label_array
        if self.label.role == "target":
            raise InputError("the data module serves segmentation and classification only", where=self.manifest.name)
        names, expected = ([b.name for b in bands] for bands in (self.image.bands, preprocess.bands))
        if names != expected:
            raise InputError(f"the preprocessing expects the bands {expected}, the image has {names}", where=root)

    def loader(self, split: str, *, train: bool = False) -> ChipLoader:
        """The loader of one split for this process's rank: shuffled and equal per rank for training, else in order."""
        arrays = [a.name for a in self.manifest.arrays if a in (self.image, self.label) or a.role == "valid"]
        return ChipLoader(
            self.root,
            split,
            self.batch_size,
            arrays=arrays,
            shuffle=train,
            drop_last=self.drop_last and train,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            **self._options,
        )

    def train_dataloader(self) -> ChipLoader:
        """Shuffled batches of the training split."""
        self.training_loader = self.loader(self.splits["train"], train=True)
        return self.training_loader

    def val_dataloader(self) -> ChipLoader:
        """The validation split in order."""
        return self.loader(self.splits["val"])

    def test_dataloader(self) -> ChipLoader:
        """The test split in order."""
        return self.loader(self.splits["test"])

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Preprocess a batch of native values on the device it is on, and augment it in training."""
        training = self.trainer is not None and self.trainer.training
        return self.prepare(batch, self.training_loader if training else None)

    @torch.no_grad()
    def prepare(self, batch: dict[str, Any], training: ChipLoader | None = None) -> dict[str, Tensor]:
        """Turn a ``ChipLoader`` batch into what the task gets; augmented if ``training`` yielded it last."""
        native = batch[self.image.name]
        x, valid = self.preprocess.to(native.device)(native)
        for array in self.manifest.arrays:
            if array.role == "valid":
                valid = valid & (batch[array.name] != 0)
        label = batch[self.label.name].to(torch.int64)
        mask = label if self.label.role == "mask" else None
        if mask is not None:
            unlabelled = ~valid | (mask == self.manifest.task.ignore_index)
            mask = torch.where(unlabelled, IGNORE, mask)
        if training is not None and self.augment is not None:
            sampler = training.sampler
            x, mask, valid = augment(
                x,
                mask,
                valid,
                options=self.augment,
                seed=self.seed,
                epoch=sampler.epoch,
                step=(sampler.yielded - 1) * sampler.world_size + sampler.rank,
            )
        kind = {"label": label} if mask is None else {"mask": mask}
        return {"image": x, **kind, "valid": valid, "index": batch["index"]}
