"""Lightning's view of a data set: batches from ``ChipLoader``, scaled, normalised and augmented on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _compat  # noqa: F401

# isort: split
from lightning.pytorch import LightningDataModule

from ..errors import ConfigError, InputError
from .augmentation import AugmentOptions, augment
from .loader import ChipLoader
from .spec import load_manifest
from .transforms import IGNORE, Preprocess, image_array


class SplitDataModule(LightningDataModule):
    """Loaders of a data set's three splits, and what becomes of their batches on the device.

    Args:
        root: the data set's folder, ``<root>/<name>/<version>``.
        batch_size: chips per batch on each rank.
        train_split, val_split, test_split: names of the splits.
        seed: of shuffling and augmentation.
        drop_last: leave out a last training batch that is not full (batch statistics of one chip are none).
        checksum: compare every chip with its stored checksum.
        threads: threads that read, per loader.
        prefetch: batches read ahead.
    """

    loader_class = ChipLoader

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
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
        self.root, self.batch_size = Path(root), batch_size
        self.splits = {"train": train_split, "val": val_split, "test": test_split}
        self.seed, self.drop_last = seed, drop_last
        self._options = {"checksum": checksum, "threads": threads, "prefetch": prefetch}
        self.training_loader: ChipLoader | None = None
        self.manifest = load_manifest(root)

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that the loaders read."""
        raise NotImplementedError

    def prepare(self, batch: dict[str, Any], training: ChipLoader | None = None) -> dict[str, Tensor]:
        """Turn a loader's batch into what the task gets; augmented if ``training`` yielded it last."""
        raise NotImplementedError

    def loader(self, split: str, *, train: bool = False) -> ChipLoader:
        """The loader of one split for this process's rank: shuffled and equal per rank for training, else in order."""
        return self.loader_class(
            self.root,
            split,
            self.batch_size,
            arrays=self.arrays,
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


class ChipDataModule(SplitDataModule):
    """Train, validation and test batches of one data set.

    The task gets ``image`` float32 (B, C', H, W), normalised and 0 where there is no data; ``mask`` int64 (B, H, W)
    with 255 where a pixel has no label or no data, or ``label`` int64 (B,); ``valid`` bool (B, H, W); and ``index``
    int64 (B,), the chips' numbers in the split; contexts are prepared as the image is. Training batches are shuffled
    and augmented, each draw keyed by seed, epoch and the batch's number over all ranks, so that a resumed run goes on
    as if it had not stopped.

    Args:
        root, batch_size, options: see `SplitDataModule`.
        preprocess: from stored values to network input; the same module goes with the weights.
        augment: what to vary in training batches; nothing by default.
        contexts: arrays that show the ground around the chip with the image's bands, such as ``image_x8``.

    Raises:
        InputError: the task is neither segmentation nor classification, or ``preprocess`` was made for other bands.
        FormatError: a context that the data set does not have, naming those it has.
        ConfigError: an orbit to drop, but no bands of two orbits.
    """

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
        preprocess: Preprocess,
        augment: AugmentOptions | None = None,
        *,
        contexts: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(root, batch_size, **options)
        self.preprocess, self.augment = preprocess, augment
        self.image = image_array(self.manifest)
        self.label = self.manifest.label_array
        if self.label.role == "target":
            raise InputError("the data module serves segmentation and classification only", where=self.manifest.name)
        names, expected = ([b.name for b in bands] for bands in (self.image.bands, preprocess.bands))
        if names != expected:
            raise InputError(f"the preprocessing expects the bands {expected}, the image has {names}", where=root)
        self.contexts = [self.manifest.array(name) for name in contexts]
        for array in self.contexts:
            if array.bands != self.image.bands or array.shape != self.image.shape:
                raise InputError(f"{array.name} has other bands or another size than {self.image.name}", where=root)
        self.orbits = orbit_channels(preprocess.channel_names)
        if augment is not None and augment.orbits and len(self.orbits) < 2:
            raise ConfigError(
                f"no bands of two orbits among {', '.join(preprocess.channel_names)}", where="AUGMENT.ORBITS"
            )

    @property
    def arrays(self) -> list[str]:
        """Image, label, contexts and masks of validity."""
        wanted = (self.image, self.label, *self.contexts)
        return [a.name for a in self.manifest.arrays if a in wanted or a.role == "valid"]

    @torch.no_grad()
    def prepare(self, batch: dict[str, Any], training: ChipLoader | None = None) -> dict[str, Tensor]:
        """Turn a ``ChipLoader`` batch into what the task gets; augmented if ``training`` yielded it last."""
        preprocess = self.preprocess.to(batch[self.image.name].device)
        images, known, valid = {}, {}, {}
        for name, array in (("image", self.image), *((array.name, array) for array in self.contexts)):
            images[name], known[name], valid[name] = preprocess.channelwise(batch[array.name])
        stored = [array.name for array in self.manifest.arrays if array.role == "valid"]
        if stored:  # as in evaluation, they alone say where the input is valid
            valid["image"] = torch.stack([batch[name] != 0 for name in stored]).all(0)
            images["image"] = images["image"] * valid["image"][:, None]
        label = batch[self.label.name].to(torch.int64)
        mask = label if self.label.role == "mask" else None
        if mask is not None:
            unlabelled = ~valid["image"] | (mask == self.manifest.task.ignore_index)
            mask = torch.where(unlabelled, IGNORE, mask)
        if training is not None and self.augment is not None:
            if preprocess.partial or stored:  # a band without data stays without
                valid = {name: known[name] & pixels[:, None] for name, pixels in valid.items()}
            sampler = training.sampler
            images, valid, mask = augment(
                images,
                valid,
                mask,
                options=self.augment,
                seed=self.seed,
                epoch=sampler.epoch,
                step=(sampler.yielded - 1) * sampler.world_size + sampler.rank,
                orbits=self.orbits,
            )
        kind = {"label": label} if mask is None else {"mask": mask}
        pixels = valid["image"] if valid["image"].ndim == 3 else valid["image"].any(1)
        return {**images, **kind, "valid": pixels, "index": batch["index"]}


def orbit_channels(names: Sequence[str]) -> list[list[int]]:
    """Channels of the ascending and of the descending orbit, by the ends ``_asc`` and ``_desc`` of their names."""
    found = [[i for i, name in enumerate(names) if name.endswith(end)] for end in ("_asc", "_desc")]
    return [channels for channels in found if channels]
