"""From predictions to a result record: stream over the shards, count, score, write ``result.json``.

The evaluator reads predictions, never models, and imports no torch. One batch of chips is in memory at a time; what is
kept are the integers or sums of each unit (scene, event, block or location). Those of each chip go to
``confusion.parquet``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configs import dump, parse_yaml
from ..datasets.files import sha256_file
from ..datasets.reader import Shard, open_split
from ..datasets.spec import MANIFEST_NAME, Manifest, load_manifest, manifest_sha256
from ..errors import FormatError, InputError
from ..models.predictions import PREDICTIONS_NAME, Predictions
from ..models.runs import CONFIG_NAME, RunInfo, config_hash, provenance, published, read_run
from . import reflectance
from .chip_table import CONFUSION_NAME, write_confusion
from .counting import UnitCounts, count_chip, labelled_chips, probability_counts, sum_chip, target_chips
from .figures import Counts
from .records import (
    RESULT_NAME,
    DatasetRef,
    Harness,
    Histogram,
    Kind,
    Metric,
    Result,
    Speed,
    Unit,
    make_result,
    read_result,
    write_result,
)
from .scores import (
    BOUNDARY_KEYS,
    abstained_metric,
    as_histogram,
    as_metric,
    estimates,
    histogram_metrics,
    unit_scores,
)


@dataclass(frozen=True)
class Scored:
    """One file of predictions, counted.

    ``calibration`` and ``confidence`` (256, 2), see ``counting.probability_counts``; None without probabilities.
    """

    task: Kind
    manifest: Manifest
    split: str
    chips: int
    units: dict[str, UnitCounts]  # by scene id, in the manifest's order
    calibration: NDArray[np.int64] | None
    confidence: NDArray[np.int64] | None
    predictions_sha256: str
    confusion_sha256: str | None


def evaluate_run(run: str | Path, split: str, *, dataset: str | Path | None = None, speed: bool = False) -> Path:
    """Score a run on a split; predict first where the run has weights but no predictions yet.

    Args:
        run: a run folder as ``tidemark train`` leaves it.
        split: name of the split.
        dataset: version folder of the data to score on; None: where the run says. Data that the run has not seen must
            have the same bands and classes, and its results lie in ``<run>/on-<name>-<version>/<split>``; predictions
            there of an earlier build of the data are made again.
        speed: also measure end-to-end throughput of the run's weights; what was measured before for the same
            predictions is kept without.

    Returns:
        ``<run>/<split>/result.json``; ``confusion.parquet`` lies beside it.

    Raises:
        FormatError: no finished run there, or predictions that are not for this data and split.
        InputError: no predictions and no weights to make them from.
        WeightsError: the weights do not fit the data.
    """
    run, info = Path(run), read_run(run)
    folder, place = placed(run, split, dataset)
    predictions, path = place / PREDICTIONS_NAME, place / RESULT_NAME
    if not predictions.exists() or (place != run / split and _outdated(predictions, folder)):
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
    else:
        measured = _speed_before(path, scored)
    result = _record_of_run(scored, info, (run / CONFIG_NAME).read_text(encoding="utf-8"), measured)
    write_result(path, result)
    return path


def placed(run: str | Path, split: str, dataset: str | Path | None = None) -> tuple[Path, Path]:
    """The version folder that a run is scored on, and the folder of the predictions and the record; see `evaluate_run`.

    Raises:
        FormatError: no finished run, or no data set there.
    """
    run, own = Path(run), read_run(run).dataset
    if dataset is None:
        if not (own.folder / MANIFEST_NAME).exists():
            hint = "call it where the training ran, or give the data set's folder (--dataset)"
            raise FormatError("the run's data set is not here", where=own.folder, hint=hint)
        return own.folder, run / split
    other = load_manifest(dataset)
    if all(getattr(other, key) == getattr(own, key) for key in ("name", "version", "content_sha256")):
        return Path(dataset), run / split
    return Path(dataset), run / f"on-{other.name}-{other.version}" / split


def _outdated(predictions: Path, folder: Path) -> bool:
    """Whether the data were built anew, under the same name and version, since they were predicted."""
    return Predictions(predictions).content_sha256 != load_manifest(folder).content_sha256


def _speed_before(path: Path, scored: Scored) -> Speed | None:
    """What was measured for the record of the very same predictions, if anything."""
    with suppress(FormatError):
        before = read_result(path)
        if before.predictions_sha256 == scored.predictions_sha256:
            return before.speed
    return None


def score(predictions: str | Path, folder: str | Path, split: str, *, confusion_path: Path | None = None) -> Scored:
    """Count one ``predictions.h5`` against the labels of a split.

    A pixel counts where it has a label and its input is valid; a patch counts where it has a label; of a harmonization
    a pixel counts where both images are valid, away from the chip's border.

    Args:
        predictions: the file.
        folder: the data set's version folder.
        split: name of the split.
        confusion_path: where to write each chip's integers as Parquet; None: nowhere.

    Raises:
        FormatError: the predictions are not exactly for these chips, or hold another class.
        InputError: a harmonization's chips are too small to be scored.
    """
    digest = sha256_file(predictions) if Path(predictions).is_file() else ""
    manifest, shards = open_split(folder, split)
    reader = Predictions(predictions)
    reader.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
    task, n = kind_of(manifest), len(manifest.task.classes)
    if task == "harmonization" and min(reader.shape[1:]) <= 2 * reflectance.BORDER_PX:
        size = " x ".join(map(str, reader.shape[1:]))
        raise InputError(
            f"chips of {size} px: nothing is left inside a border of {reflectance.BORDER_PX} px", where=folder
        )
    units: dict[int, UnitCounts] = {}
    calibrated = task != "segmentation" and reader.probability_shape is not None
    calibration, confidence = np.zeros((2, 256, 2), np.int64)

    def counted(shard: Shard) -> Iterator[tuple[str, int, UnitCounts]]:
        if task == "harmonization":
            indices = reflectance.index_bands([band.name for band in manifest.label_array.bands])
            for chip_id, scene, truth, valid in target_chips(shard):
                yield chip_id, scene, sum_chip(truth, reader.read(chip_id)[0], valid, indices)
            return
        for chip_id, scene, truth in labelled_chips(shard):
            prediction, probability = reader.read(chip_id)
            if calibrated:
                parts = probability_counts(task, truth, prediction, probability)
                for total, part in zip((calibration, confidence), parts, strict=True):
                    total += part
            yield chip_id, scene, count_chip(truth, prediction, n, boundary=task == "binary-segmentation")

    def chips() -> Iterator[tuple[str, str, UnitCounts]]:
        for shard in shards:
            for chip_id, scene, counts in counted(shard):
                units.setdefault(scene, UnitCounts(np.zeros((n, n), np.int64))).add(counts)
                yield chip_id, manifest.scenes[scene].id, counts

    n_chips = sum(1 for _ in chips()) if confusion_path is None else write_confusion(confusion_path, chips())
    return Scored(
        task=task,
        manifest=manifest,
        split=split,
        chips=n_chips,
        units={manifest.scenes[scene].id: units[scene] for scene in sorted(units)},
        calibration=calibration if calibrated else None,
        confidence=confidence if calibrated else None,
        predictions_sha256=digest,
        confusion_sha256=None if confusion_path is None else sha256_file(confusion_path),
    )


def kind_of(manifest: Manifest) -> Kind:
    """The protocol's task of a data set."""
    if manifest.task.kind == "regression":
        return "harmonization"
    return "binary-segmentation" if manifest.task.binary else manifest.task.kind


def figures_of(scored: Scored) -> tuple[dict[str, Metric], tuple[Unit, ...]]:
    """All metrics with intervals, and the units with their own scores."""
    names, counts = _names(scored), list(scored.units.values())
    binary, summed = scored.task == "binary-segmentation", scored.task == "harmonization"
    stacked = Counts(
        np.stack([u.confusion for u in counts])[None],
        np.stack([u.boundary for u in counts])[None] if binary else None,
        {key: np.stack([u.sums[key] for u in counts])[None] for key in counts[0].sums} if summed else None,
    )
    found = {key: as_metric(value) for key, value in estimates(scored.task, names, stacked).items()}
    if not summed:
        found |= {"ece": Metric(value=None), "aurc": Metric(value=None)} | histogram_metrics(*_histograms(scored))
    units = tuple(
        Unit(
            id=unit,
            confusion=tuple(map(tuple, c.confusion.tolist())),
            pixels=c.pixels,
            counts={
                "abstained": c.abstained,
                **(dict(zip(BOUNDARY_KEYS, c.boundary.tolist(), strict=True)) if binary else {}),
            },
            sums={key: tuple(values.tolist()) for key, values in c.sums.items()},
            scores=scores,
        )
        for (unit, c), scores in zip(scored.units.items(), unit_scores(scored.task, names, stacked), strict=True)
    )
    return found | abstained_metric(units), units


def _names(scored: Scored) -> list[str]:
    if scored.task == "harmonization":
        return [band.name for band in scored.manifest.label_array.bands]
    return [c.name for c in scored.manifest.task.classes]


def _histograms(scored: Scored) -> tuple[Histogram | None, Histogram | None]:
    return tuple(None if c is None else as_histogram(c) for c in (scored.calibration, scored.confidence))


def record_fields(scored: Scored) -> dict[str, Any]:
    """The fields of a `Result` that predictions and data decide, whoever made the predictions."""
    manifest, (found, units) = scored.manifest, figures_of(scored)
    calibration, confidence = _histograms(scored)
    return dict(
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
        classes=manifest.task.classes,
        bands=tuple(_names(scored)) if scored.task == "harmonization" else (),
        metrics=found,
        units=units,
        chips=scored.chips,
        calibration=calibration,
        confidence=confidence,
        predictions_sha256=scored.predictions_sha256,
        confusion_sha256=scored.confusion_sha256,
    )


def _record_of_run(scored: Scored, info: RunInfo, config: str, speed: Speed | None) -> Result:
    own, made = provenance(), info.provenance
    recipe = parse_yaml(config, where=CONFIG_NAME) if config.strip() else None
    if recipe is not None:
        if not isinstance(recipe, dict) or not isinstance(recipe.get("DATA", {}), dict):
            raise FormatError("not the configuration of a run", where=CONFIG_NAME)
        recipe = published(recipe)
    return make_result(
        **record_fields(scored),
        model=dict(
            name=info.model,
            arguments=info.arguments,
            parameters=info.parameters,
            weights_sha256=info.weights_sha256,
            trained=info.trained,
            label=info.label or info.model,
        ),
        seed=info.seed,
        speed=speed,
        harness=Harness(version=own.tidemark, git_commit=own.git_commit, dirty=own.dirty),
        made_with=Harness(version=made.tidemark, git_commit=made.git_commit, dirty=made.dirty),
        packages=made.packages,
        command=made.command,
        device=made.device,
        config="" if recipe is None else dump(recipe),
        config_hash=None if recipe is None else config_hash(recipe, info.dataset.content_sha256),
    )
