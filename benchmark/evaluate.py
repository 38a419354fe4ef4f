"""From predictions to a result record: stream over the shards, count, score, write ``result.json``.

The evaluator reads predictions, never models, and imports no torch. One batch of chips is in memory at a time; what is
kept are the integers of each unit (scene, event or block). The integers of each chip go to ``confusion.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..configs import parse_yaml
from ..datasets.files import atomic_path, sha256_file
from ..datasets.reader import Shard, open_split
from ..datasets.spec import Manifest, load_manifest, manifest_sha256
from ..errors import InputError
from ..models.predictions import PREDICTIONS_NAME, Predictions
from ..models.runs import CONFIG_NAME, RunInfo, config_hash, provenance, read_run
from . import metrics
from .records import (
    RESULT_NAME,
    DatasetRef,
    Harness,
    Kind,
    Metric,
    ModelRef,
    Result,
    Speed,
    Unit,
    make_result,
    write_result,
)
from .scores import BOUNDARY_KEYS, Counts, as_metric, estimates, unit_scores

CONFUSION_NAME = "confusion.parquet"
BATCH_BYTES = 32 << 20


@dataclass
class UnitCounts:
    """What is added up for one unit (scene, event or block), or for one chip of it."""

    confusion: NDArray[np.int64]  # (n, n)
    boundary: NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    abstained: int = 0  # valid pixels without an answer

    def add(self, other: UnitCounts) -> None:
        """Add another one's counts to these."""
        self.confusion += other.confusion
        self.boundary += other.boundary
        self.abstained += other.abstained


@dataclass(frozen=True)
class Scored:
    """One file of predictions, counted. ``calibration`` is None where the file has no probabilities."""

    task: Kind
    manifest: Manifest
    split: str
    chips: int
    units: dict[str, UnitCounts]  # by scene id, in the manifest's order
    calibration: NDArray[np.int64] | None  # (256, 2), see metrics.calibration_counts
    predictions_sha256: str
    confusion_sha256: str | None


def evaluate_run(run: str | Path, split: str, *, dataset: str | Path | None = None, speed: bool = False) -> Path:
    """Score a run on a split; predict first where the run has weights but no predictions yet.

    Args:
        run: a run folder as ``tidemark train`` leaves it.
        split: name of the split.
        dataset: version folder of the data to score on; None: where the run says. Data that the run has not seen must
            have the same bands and classes, and its results lie in ``<run>/on-<name>-<version>/<split>``.
        speed: also measure end-to-end throughput of the run's weights.

    Returns:
        ``<run>/<split>/result.json``; ``confusion.parquet`` lies beside it.

    Raises:
        FormatError: no finished run there, or predictions that are not for this data and split.
        InputError: no predictions and no weights to make them from.
        WeightsError: the weights do not fit the data.
    """
    run, info = Path(run), read_run(run)
    folder, place = info.dataset.folder, run / split
    if dataset is not None:
        folder, manifest = Path(dataset), load_manifest(dataset)
        if manifest.content_sha256 != info.dataset.content_sha256:
            place = run / f"on-{manifest.name}-{manifest.version}" / split
    predictions, measured = place / PREDICTIONS_NAME, None
    if not predictions.exists():
        if info.weights_sha256 is None:
            raise InputError(
                f"no predictions for {split!r} and no weights to make them from",
                where=run,
                hint="train again, or take a split that the run has predicted",
            )
        from ..models.inference import predict_split

        predict_split(run, split, folder=dataset, out=predictions)
    scored = score(predictions, folder, split, confusion_path=place / CONFUSION_NAME)
    if speed and info.weights_sha256 is not None:
        from .speed import measure_speed

        measured = measure_speed(run, split, folder)
    result = _record_of_run(scored, info, (run / CONFIG_NAME).read_text(encoding="utf-8"), measured)
    write_result(place / RESULT_NAME, result)
    return place / RESULT_NAME


def score(predictions: str | Path, folder: str | Path, split: str, *, confusion_path: Path | None = None) -> Scored:
    """Count one ``predictions.h5`` against the labels of a split.

    A pixel counts where it has a label and its input is valid; a patch counts where it has a label.

    Args:
        predictions: the file.
        folder: the data set's version folder.
        split: name of the split.
        confusion_path: where to write each chip's integers as Parquet; None: nowhere.

    Raises:
        FormatError: the predictions are not exactly for these chips, or hold another class.
    """
    digest = sha256_file(predictions) if Path(predictions).is_file() else ""
    manifest, shards = open_split(folder, split)
    reader = Predictions(predictions)
    reader.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
    task, n = kind_of(manifest), len(manifest.task.classes)
    units: dict[int, UnitCounts] = {}
    calibration = np.zeros((256, 2), np.int64)
    calibrated = task != "segmentation" and reader.probability_shape is not None

    def chips() -> Iterator[tuple[str, str, UnitCounts]]:
        for shard in shards:
            for chip_id, scene, truth in labelled_chips(shard):
                prediction, probability = reader.read(chip_id)
                counts = count_chip(truth, prediction, n, boundary=task == "binary-segmentation")
                units.setdefault(scene, UnitCounts(np.zeros((n, n), np.int64))).add(counts)
                if calibrated:
                    calibration[...] += calibration_of(task, truth, prediction, probability)
                yield chip_id, manifest.scenes[scene].id, counts

    if confusion_path is None:
        n_chips = sum(1 for _ in chips())
    else:
        n_chips = write_confusion(confusion_path, chips(), n)
    return Scored(
        task=task,
        manifest=manifest,
        split=split,
        chips=n_chips,
        units={manifest.scenes[scene].id: units[scene] for scene in sorted(units)},
        calibration=calibration if calibrated else None,
        predictions_sha256=digest,
        confusion_sha256=None if confusion_path is None else sha256_file(confusion_path),
    )


def kind_of(manifest: Manifest) -> Kind:
    """The protocol's task of a data set. Raises InputError for a task that has no evaluator."""
    if manifest.task.kind == "regression":
        raise InputError("no evaluator for regression yet", where=manifest.name)
    return "binary-segmentation" if manifest.task.binary else manifest.task.kind


def labelled_chips(shard: Shard) -> Iterator[tuple[str, int, NDArray[np.uint8]]]:
    """Chip id, scene number and label ((H,W) uint8, or () for patches) of every chip; invalid input is 255."""
    manifest = shard.manifest
    label = manifest.label_array
    inputs = [
        a
        for a in manifest.arrays
        if label.shape
        and a.shape[-2:] == label.shape
        and (
            a.role == "valid"
            or a.role == "image"
            and (a.dtype.startswith("float") or any(band.nodata is not None for band in a.bands))
        )
    ]
    step = max(1, BATCH_BYTES // sum(a.chip_bytes for a in (label, *inputs)))
    ids, scenes = shard.chip_ids, shard.scene_index
    for start in range(0, shard.n, step):
        numbers = range(start, min(start + step, shard.n))
        truth = shard.read_many(label.name, numbers)
        truth[truth == manifest.task.ignore_index] = metrics.IGNORE
        for array in inputs:
            values = shard.read_many(array.name, numbers)
            invalid = values == 0 if array.role == "valid" else invalid_pixels(values, [b.nodata for b in array.bands])
            truth[invalid] = metrics.IGNORE
        for row, i in enumerate(numbers):
            yield ids[i], int(scenes[i]), truth[row]


def invalid_pixels(image: NDArray, nodata: list[float | None]) -> NDArray[np.bool_]:
    """(B, H, W): any band is not finite or holds its nodata value. ``image`` is (B, C, H, W) as stored."""
    invalid = np.zeros((image.shape[0], *image.shape[2:]), np.bool_)
    for band, value in enumerate(nodata):
        if image.dtype.kind == "f":
            invalid |= ~np.isfinite(image[:, band])
        if value is not None:
            invalid |= image[:, band] == value
    return invalid


def count_chip(truth: NDArray, prediction: NDArray, n: int, boundary: bool) -> UnitCounts:
    """The integers of one chip."""
    counts = UnitCounts(metrics.confusion(truth, prediction, n))
    counts.abstained = int(np.count_nonzero((prediction == metrics.IGNORE) & (truth != metrics.IGNORE)))
    if boundary:
        counts.boundary = metrics.boundary_counts(truth, prediction)
    return counts


def calibration_of(task: Kind, truth: NDArray, prediction: NDArray, probability: NDArray) -> NDArray[np.int64]:
    """One chip's part of the calibration histogram, (256, 2)."""
    known = truth != metrics.IGNORE
    if task == "binary-segmentation":
        return metrics.calibration_counts(probability[known], truth[known] == 1)
    answer = int(prediction)
    level = probability[answer] if answer < len(probability) else probability.max()
    return metrics.calibration_counts(
        np.atleast_1d(level)[np.atleast_1d(known)], np.atleast_1d(truth == prediction)[np.atleast_1d(known)]
    )


def write_confusion(path: Path, chips: Iterator[tuple[str, str, UnitCounts]], n: int) -> int:
    """Write each chip's integers, atomically and in constant memory; returns the number of chips.

    Columns: ``chip_id``, ``unit``, ``confusion`` (n * n int64, rows = truth, row by row), ``boundary`` (4 int64, see
    metrics.boundary_counts), ``abstained``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("chip_id", pa.string()),
            ("unit", pa.string()),
            ("confusion", pa.list_(pa.int64(), n * n)),
            ("boundary", pa.list_(pa.int64(), 4)),
            ("abstained", pa.int64()),
        ]
    )
    done = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        rows: list[tuple] = []

        def flush() -> None:
            columns = zip(*rows, strict=True)
            writer.write_table(pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema))
            rows.clear()

        for chip_id, unit, c in chips:
            rows.append((chip_id, unit, c.confusion.ravel().tolist(), c.boundary.tolist(), c.abstained))
            done += 1
            if len(rows) >= 1024:
                flush()
        if rows:
            flush()
    return done


def figures_of(scored: Scored) -> tuple[dict[str, Metric], tuple[Unit, ...]]:
    """All metrics with intervals, and the units with their own scores."""
    names = [c.name for c in scored.manifest.task.classes]
    binary = scored.task == "binary-segmentation"
    confusion = np.stack([u.confusion for u in scored.units.values()])[None]
    boundary = np.stack([u.boundary for u in scored.units.values()])[None] if binary else None
    counts = Counts(confusion, boundary)
    found = {key: as_metric(value) for key, value in estimates(scored.task, names, counts).items()}
    pixels, abstained = int(confusion.sum()), sum(u.abstained for u in scored.units.values())
    found["abstained"] = Metric(value=abstained / pixels if pixels else None)
    calibration = scored.calibration
    found["ece"] = Metric(
        value=None if calibration is None else metrics.none(metrics.expected_calibration_error(calibration))
    )
    units = tuple(
        Unit(
            id=unit,
            confusion=tuple(map(tuple, c.confusion.tolist())),
            pixels=int(c.confusion.sum()),
            counts={
                "abstained": c.abstained,
                **(dict(zip(BOUNDARY_KEYS, c.boundary.tolist(), strict=True)) if binary else {}),
            },
            scores=scores,
        )
        for (unit, c), scores in zip(scored.units.items(), unit_scores(scored.task, names, counts), strict=True)
    )
    return found, units


def _record_of_run(scored: Scored, info: RunInfo, config: str, speed: Speed | None) -> Result:
    manifest, own, made = scored.manifest, provenance(), info.provenance
    found, units = figures_of(scored)
    return make_result(
        task=scored.task,
        dataset=DatasetRef(
            name=manifest.name,
            version=manifest.version,
            title=manifest.title,
            content_sha256=manifest.content_sha256,
            manifest_sha256=manifest_sha256(manifest),
            simulated=manifest.simulated,
            licence=manifest.licence,
            split=scored.split,
        ),
        model=ModelRef(
            name=info.model,
            arguments=info.arguments,
            parameters=info.parameters,
            weights_sha256=info.weights_sha256,
            trained=info.trained,
            label=info.label or info.model,
        ),
        seed=info.seed,
        classes=manifest.task.classes,
        metrics=found,
        units=units,
        chips=scored.chips,
        speed=speed,
        harness=Harness(version=own.tidemark, git_commit=own.git_commit, dirty=own.dirty),
        packages=made.packages,
        command=made.command,
        device=made.device,
        config=config,
        config_hash=config_hash(parse_yaml(config, where=CONFIG_NAME), info.dataset.content_sha256),
        predictions_sha256=scored.predictions_sha256,
        confusion_sha256=scored.confusion_sha256,
    )
