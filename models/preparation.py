"""What the kind of a data set's task decides about a training: channels, batches, the task, what the weights say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from .. import _compat  # noqa: F401

# isort: split
from lightning.pytorch import LightningDataModule
from torch import nn

from ..datasets.augmentation import AugmentOptions
from ..datasets.context import context_scale
from ..datasets.datamodule import ChipDataModule
from ..datasets.pair_geometry import PAN, PairOptions
from ..datasets.pairs import PairDataModule
from ..datasets.spec import Manifest
from ..datasets.transforms import Preprocess
from ..errors import ConfigError
from .harmonization.meaning import Meaning
from .harmonization.task import HarmonizationTask, loss_name
from .registry import Entry, ModelSpec
from .tasks import ClassificationTask, SegmentationTask, Task


@dataclass(frozen=True)
class Prepared:
    """A training but for its network: ``task`` makes the task around it; ``meaning`` is of a regression alone."""

    spec: ModelSpec
    data: LightningDataModule
    preprocess: Preprocess
    task: Callable[[nn.Module], Task]
    meaning: Meaning | None = None


def prepare(cfg: CfgNode, manifest: Manifest, root: Path, entry: Entry, options: CfgNode) -> Prepared:
    """Everything but the network.

    Args:
        cfg: of the run.
        manifest, root: the data set.
        entry: the registered model.
        options: TRAIN, resolved.

    Raises:
        ConfigError: an option that the data or the kind of task do not allow.
        InputError: data that are no pairs, or whose grids are not known.
    """
    build = _pairs if manifest.task.kind == "regression" else _classes
    chips = sum(shard.chips for shard in manifest.split_shards(cfg.DATA.TRAIN_SPLIT))
    shared = {
        "train_split": cfg.DATA.TRAIN_SPLIT,
        "val_split": cfg.DATA.VAL_SPLIT,
        "seed": cfg.SEED,
        "drop_last": chips >= options.BATCH_SIZE * options.DEVICES * options.NODES,
    }
    return build(cfg, manifest, root, entry, options, shared)


def _classes(
    cfg: CfgNode, manifest: Manifest, root: Path, entry: Entry, options: CfgNode, shared: dict[str, Any]
) -> Prepared:
    preprocess = Preprocess.from_manifest(
        manifest, cfg.DATA.BANDS or None, cfg.DATA.DERIVED, cfg.DATA.NORMALIZATION, partial=cfg.DATA.PARTIAL
    )
    classes = len(manifest.task.classes)
    contexts = [name for name in entry.inputs if context_scale(name)]
    spec = ModelSpec(dict.fromkeys(("image", *contexts), preprocess.channels), 1 if manifest.task.binary else classes)
    if cfg.AUGMENT.SHIFT:
        raise ConfigError("only the registration of pairs can be moved", where="AUGMENT.SHIFT", hint="set it to 0")
    augment = AugmentOptions(**{key.lower(): value for key, value in cfg.AUGMENT.items() if value})
    data = ChipDataModule(root, options.BATCH_SIZE, preprocess, augment, contexts=contexts, **shared)
    kind = {"segmentation": SegmentationTask, "classification": ClassificationTask}[manifest.task.kind]

    def task(network: nn.Module) -> Task:
        return kind(
            network, options, inputs=entry.inputs, classes=classes, out_channels=spec.out_channels, seed=cfg.SEED
        )

    return Prepared(spec, data, preprocess, task)


def _pairs(
    cfg: CfgNode, manifest: Manifest, root: Path, entry: Entry, options: CfgNode, shared: dict[str, Any]
) -> Prepared:
    for key, default in (("BANDS", []), ("DERIVED", []), ("PARTIAL", False)):
        if cfg.DATA[key] != default:
            raise ConfigError("pairs of reflectance are taken as they are", where=f"DATA.{key}", hint="leave it out")
    if cfg.DATA.NORMALIZATION not in ("manifest", "none"):
        raise ConfigError("the networks take reflectance itself", where="DATA.NORMALIZATION", hint="set it to none")
    for key, default in (("POS_WEIGHT", 1.0), ("CLASS_WEIGHTS", []), ("LABEL_SMOOTHING", 0.0)):
        if options[key] != default:
            raise ConfigError("reflectance has no classes", where=f"TRAIN.{key}", hint="leave it out")
    if options.CALIBRATE:
        raise ConfigError("there are no logits to calibrate", where="TRAIN.CALIBRATE", hint="set it to false")
    data = PairDataModule(root, options.BATCH_SIZE, PairOptions.from_config(cfg.AUGMENT), **shared)
    if PAN in entry.inputs and data.pan is None:
        raise ConfigError(f"{entry.name} needs the input {PAN!r}, {manifest.name} has none", where="MODEL.NAME")
    spec = ModelSpec({"image": data.preprocess.channels, PAN: 1}, len(data.target.bands))
    loss = loss_name(options.LOSS)
    meaning = Meaning(
        pan=data.pan_preprocess.to_config(),
        target=data.target.bands,
        loss=loss,
        residual=bool(cfg.MODEL.ARGS.get("residual", False)),
    )

    def task(network: nn.Module) -> Task:
        return HarmonizationTask(network, options, bands=spec.out_channels, units=len(manifest.scenes), seed=cfg.SEED)

    return Prepared(spec, data, data.preprocess, task, meaning)
