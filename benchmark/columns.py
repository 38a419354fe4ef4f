"""The metrics of each task in the order of its table, and how they are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..datasets.spec import ClassDef
from .records import Kind


@dataclass(frozen=True)
class Column:
    """How a metric is shown: ``title`` for a heading, ``better`` is "higher" or "lower"."""

    key: str
    title: str
    better: str = "higher"
    decimals: int = 3


def columns(task: Kind, names: Sequence[str | ClassDef]) -> list[Column]:
    """The metrics of a task in the order of its table, headline first.

    Args:
        task: the protocol's task.
        names: the classes or their names; of a harmonization the names of its bands.
    """
    names = [name if isinstance(name, str) else name.name for name in names]
    calibration = [Column("ece", "ECE", "lower"), Column("aurc", "AURC", "lower", 4)]
    if task == "harmonization":
        return _harmonization(names)
    if task == "binary-segmentation":
        return [
            Column("iou", f"{names[1].capitalize()} IoU"),
            Column("scene_mean_iou", "Scene-mean IoU"),
            Column("worst_decile_iou", "Worst-decile scene"),
            Column("precision", "Precision"),
            Column("recall", "Recall"),
            Column("f1", "F1"),
            Column("oa", "OA"),
            Column("boundary_f1", "Boundary F1 (2 px)"),
            Column("dry_false_positive_rate", f"FPR, scenes without {names[1]}", "lower"),
            *calibration,
            Column("abstained", "Abstained", "lower"),
        ]
    if task == "segmentation":
        shown, head = ("iou", "precision", "recall"), [Column("mean_iou", "Mean IoU"), Column("oa", "OA")]
    else:
        shown, head = (
            ("f1", "precision", "recall"),
            [
                Column("macro_f1", "Macro-F1"),
                Column("balanced_accuracy", "Balanced accuracy"),
                Column("accuracy", "Accuracy"),
            ],
        )
    title = {"iou": "IoU", "f1": "F1", "precision": "Precision", "recall": "Recall"}
    by_class = [Column(f"{key}:{name}", f"{title[key]}, {name}") for key in shown for name in names]
    return [*head, *calibration, *by_class, Column("abstained", "Abstained", "lower")]


def _harmonization(bands: Sequence[str]) -> list[Column]:
    index = {"ndvi": "NDVI", "ndwi1": "NDWI1", "ndwi2": "NDWI2"}
    return [
        Column("psnr", "PSNR (dB)", decimals=2),
        Column("psnr_shifted", "PSNR (dB), best shift", decimals=2),
        Column("ssim", "SSIM"),
        Column("nrmse", "NRMSE", "lower"),
        Column("rmse", "RMSE", "lower", 4),
        Column("sam", "SAM (°)", "lower", 2),
        Column("ergas", "ERGAS", "lower", 2),
        *(Column(f"psnr:{band}", f"PSNR (dB), {band}", decimals=2) for band in bands),
        *(Column(f"ssim:{band}", f"SSIM, {band}") for band in bands),
        *(Column(f"nrmse:{band}", f"NRMSE, {band}", "lower") for band in bands),
        *(Column(f"rmse:{band}", f"RMSE, {band}", "lower", 4) for band in bands),
        *(Column(f"bias:{band}", f"Bias, {band}", "zero", 4) for band in bands),
        *(
            column
            for key, name in index.items()
            for column in (
                Column(f"{key}_r", f"{name} r"),
                Column(f"{key}_rmse", f"{name} RMSE", "lower", 4),
                Column(f"{key}_mae", f"{name} MAE", "lower", 4),
                Column(f"{key}_bias", f"{name} bias", "zero", 4),
            )
        ),
        Column("abstained", "Abstained", "lower"),
    ]
