"""Training: from a configuration to a run folder, resumable at any moment and never done twice.

``runs/<data set>-<version>/<model>-<hash>/seed<k>/`` holds ``config.yaml``, ``run.json`` (written last: the run is
complete), ``weights/``, ``logs/`` (``metrics.csv``, TensorBoard), ``curves.png`` and ``last.ckpt``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from .. import configs
from ..datasets.files import write_atomic
from ..datasets.journal import remove_temporaries
from ..datasets.spec import Manifest, load_manifest
from ..errors import ConfigError
from .registry import create_model, find_model
from .runs import (
    CONFIG_NAME,
    RUN_NAME,
    RunInfo,
    dataset_of,
    provenance,
    published,
    read_run,
    run_folder,
    usable_cores,
    with_init,
    write_run,
)
from .session import alone, process_rank, torch_threads

MONITORS = {"segmentation": "val/iou", "classification": "val/macro_f1", "regression": "val/psnr"}


def train(cfg: CfgNode, progress: bool | None = None) -> Path:
    """Train a network, or fit a trivial row, unless that is done already.

    Args:
        cfg: from ``configs.load_config``.
        progress: a progress bar (True), a line per epoch (False), or by whether the output is a terminal (None).

    Returns:
        The run folder. A complete run of the same configuration, data and seed is returned as it is; one that was cut
        short goes on from its last checkpoint (both unless TRAIN.RESUME is false).

    Raises:
        ConfigError: a value that does not fit the data or the model.
        DeviceError: no such device, or out of its memory.
        BusyError: another process trains this run.
        TidemarkError: the loss is not finite (step and chips are named).
    """
    if not cfg.DATA.NAME or not cfg.MODEL.NAME:
        raise ConfigError("no DATA.NAME or no MODEL.NAME", hint="start from a recipe, see `tidemark list`")
    entry, cfg = find_model(cfg.MODEL.NAME), with_init(cfg)
    root = Path(cfg.DATA.ROOT) / cfg.DATA.NAME / cfg.DATA.VERSION
    manifest = load_manifest(root)
    folder = run_folder(cfg, manifest)
    if cfg.TRAIN.RESUME and (folder / RUN_NAME).exists():
        read_run(folder)
        return folder
    if process_rank(cfg.TRAIN.DEVICES * cfg.TRAIN.NODES):
        _train_network(cfg, manifest, root, folder, False)
        return folder
    with alone(folder):
        remove_temporaries(folder)
        if not cfg.TRAIN.RESUME:
            _clear(folder)
        if not entry.trained:
            from .baselines import fit_predict

            fit_predict(cfg, folder)
        else:
            _train_network(cfg, manifest, root, folder, sys.stderr.isatty() if progress is None else progress)
    return folder


def _train_network(cfg: CfgNode, manifest: Manifest, root: Path, folder: Path, progress: bool) -> None:
    from .. import _compat  # noqa: F401  isort: skip
    import torch

    from . import keeper as keeping
    from . import weights
    from .device import find_device
    from .fit import fit, start_from
    from .preparation import prepare

    entry, kind = find_model(cfg.MODEL.NAME), manifest.task.kind
    options = _resolve(cfg, manifest, entry)
    device = find_device(options.DEVICE).type
    leads = process_rank(options.DEVICES * options.NODES) == 0
    threads = options.THREADS or max(1, usable_cores() // options.DEVICES)
    args = configs.to_dict(cfg.MODEL.ARGS)
    ready = prepare(cfg, manifest, root, entry, options)
    with torch_threads(threads):
        torch.manual_seed(cfg.SEED)
        network = create_model(cfg.MODEL.NAME, ready.spec, **args)
        if options.INIT:
            start_from(network, options.INIT, ready.preprocess, ready.meaning)
        task = ready.task(network)
        if leads:
            write_atomic(folder / CONFIG_NAME, configs.dump(cfg))
        keeper = keeping.Keeper(folder, options, lines=not progress, leads=leads)
        fit(task, ready.data, keeper, device, progress)
        if not leads:
            return
        weights.load_weights(network, keeper.best_path)
        calibration = _calibration(cfg, network, ready.data, entry.inputs) if options.CALIBRATE else None
    best = next(row for row in keeper.history if row["epoch"] == keeper.best_epoch)
    label = [entry.label, args.get("encoder"), "residual" if args.get("residual") else None]
    label += [f"{name} {args[name]:g}" if args.get(name) else None for name in ("detail", "dropout")]
    card = {
        "task_kind": kind,
        "training": configs.dump(published(cfg)),
        "scores": {"val": {name[4:]: _or_none(value) for name, value in best.items() if name.startswith("val/")}},
        "dataset": {
            "name": manifest.name,
            "version": manifest.version,
            "content_sha256": manifest.content_sha256,
            "title": manifest.title,
            "licence": manifest.licence,
            "simulated": manifest.simulated,
        },
    }
    digest = weights.save_pretrained(
        network,
        folder / "weights",
        name=cfg.MODEL.NAME,
        spec=ready.spec,
        args=args,
        preprocess_config=ready.preprocess.to_config(),
        classes=manifest.task.classes,
        card=card,
        calibration=calibration,
        harmonization=ready.meaning,
    )
    keeping.draw_curves(
        keeper.history,
        options.MONITOR,
        keeper.best_epoch,
        folder / keeping.CURVES_NAME,
        f"{cfg.MODEL.NAME} on {manifest.name} {manifest.version}, seed {cfg.SEED}",
    )
    info = RunInfo(
        dataset=dataset_of(manifest, cfg.DATA.ROOT),
        model=cfg.MODEL.NAME,
        arguments=args,
        label=", ".join(filter(None, label)),
        trained=True,
        seed=cfg.SEED,
        parameters=sum(p.numel() for p in network.parameters()),
        weights_sha256=digest,
        selected_epoch=keeper.best_epoch,
        train_seconds=keeper.seconds,
        provenance=provenance(device, threads),
    )
    write_run(folder, info, configs.dump(cfg))
    keeper.best_path.unlink()


def _calibration(cfg: CfgNode, network: Any, data: Any, inputs: tuple[str, ...]) -> Any:
    import math

    from .calibration import calibrate
    from .device import find_device

    device = find_device(cfg.TRAIN.DEVICE)
    loader = data.loader(cfg.DATA.VAL_SPLIT)
    batches = (data.prepare({name: t.to(device) for name, t in batch.items()}) for batch in loader)
    answers = len(loader.chip_ids) * math.prod(data.label.shape)
    return calibrate(
        network.to(device), batches, inputs, label=data.label.role, split=cfg.DATA.VAL_SPLIT, answers=answers
    )


def _resolve(cfg: CfgNode, manifest: Manifest, entry: Any) -> CfgNode:
    """TRAIN with MONITOR resolved, once everything is known to fit together."""
    from .device import find_device

    kind = manifest.task.kind
    if kind not in entry.tasks:
        raise ConfigError(
            f"{entry.name} is for {' and '.join(entry.tasks)}, {manifest.name} is a {kind}",
            where="MODEL.NAME",
            hint="see `tidemark list`",
        )
    for key in ("TRAIN_SPLIT", "VAL_SPLIT"):
        if not _chips(manifest, cfg.DATA[key]):
            raise ConfigError(f"the split {cfg.DATA[key]!r} has no chips", where=f"DATA.{key}")
    if len(manifest.task.classes) > 255:
        raise ConfigError(f"{len(manifest.task.classes)} classes, at most 255 can be trained", where=manifest.name)
    options = cfg.TRAIN.clone()
    options.defrost()
    if options.MONITOR == "auto":
        options.MONITOR = MONITORS[kind]
    if options.MONITOR not in (MONITORS[kind], "val/loss"):
        raise ConfigError(f"a {kind} has no {options.MONITOR}", where="TRAIN.MONITOR", hint=f"take {MONITORS[kind]}")
    if options.PRECISION == "16-mixed" and find_device(options.DEVICE).type == "cpu":
        raise ConfigError("16-mixed needs a GPU", where="TRAIN.PRECISION", hint="take bf16-mixed or 32-true")
    return options


def _chips(manifest: Manifest, split: str) -> int:
    """Chips of a split; FormatError names the valid splits."""
    return sum(shard.chips for shard in manifest.split_shards(split))


def _or_none(value: float) -> float | None:
    return value if value == value else None


def _clear(folder: Path) -> None:
    """Remove what an earlier run left; ``run.json`` goes first, so that no half of it looks complete."""
    (folder / RUN_NAME).unlink(missing_ok=True)
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
