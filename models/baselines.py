"""The trivial rows that every table must hold, fitted on the training split alone; no torch.

Water (binary masks): ``all-dry``, ``all-wet``, ``otsu``, ``pixel-forest``. Patches: ``majority``, ``band-forest``. Maps
of more classes: ``majority``, ``pixel-forest``. Pairs of reflectance have theirs in ``harmonization/rows.py``.
A row is one function ``(training, seed, **arguments) -> predict``, and ``predict(chip)`` gives the class map uint8
(H,W) or () and round(255 p) as uint8 or None. Adding a row is one such function under
``@register(…, trained=False)``.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import configs
from ..datasets.spec import load_manifest
from ..errors import ConfigError
from .chip_arrays import Chip, ChipArrays
from .forests import Predictor
from .predictions import NODATA, PREDICTIONS_NAME, Prediction, write_predictions
from .registry import find_model, register
from .runs import RunInfo, dataset_of, provenance, usable_cores, write_run

OTSU_BINS = 2048
LEARNING = ("pixel-forest", "band-forest", "band-linear", "histogram-matching")  # rows that learn from labels
MANY_CLASSES = ("majority", "pixel-forest")  # rows that map more classes than water and not water
COPOLARISED = ("vv", "hh", "after")  # names of the band that open water darkens most


@register("all-dry", label="all dry", trained=False)
def fit_all_dry(training: ChipArrays, seed: int) -> Predictor:
    """No water anywhere."""
    return lambda chip: (np.zeros(chip.valid.shape, np.uint8), None)


@register("all-wet", label="all wet", trained=False)
def fit_all_wet(training: ChipArrays, seed: int) -> Predictor:
    """Water everywhere."""
    return lambda chip: (np.ones(chip.valid.shape, np.uint8), None)


@register("otsu", label="Otsu threshold", trained=False)
def fit_otsu(training: ChipArrays, seed: int, *, band: str = "", method: str = "global") -> Predictor:
    """Otsu's threshold (1979, doi 10.1109/TSMC.1979.4310076) on one band: dark is water.

    Args:
        training: the training split.
        seed: not used.
        band: name of the band; by default the co-polarised one (VV, HH) or ``after``, or the only one.
        method: ``global`` = one threshold from the training split's histogram; ``per_chip`` = each chip its own.
    """
    number = _dark_band(training, band)
    if method == "per_chip":
        return lambda chip: (_dark(chip, number, _chip_threshold(_values(chip, number, training.partial))), None)
    if method != "global":
        raise ConfigError(f"expected global or per_chip, found {method!r}", where="MODEL.ARGS.method")
    edges = _histogram_edges(training, number)
    counts = np.zeros(OTSU_BINS, np.int64)
    for chip in training:
        values = _values(chip, number, training.partial)
        counts += np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0]
    threshold = otsu_threshold(counts, (edges[:-1] + edges[1:]) / 2)
    return lambda chip: (_dark(chip, number, threshold), None)


def otsu_threshold(counts: np.ndarray, values: np.ndarray) -> float:
    """The value (middle of a bin) whose split ``<= value`` has the largest variance between the two classes.

    Where several bins are equally good, as in a gap of the histogram, the middle one is taken.
    """
    counts = counts.astype(np.float64)
    weight = np.cumsum(counts)
    total = np.cumsum(counts * values)
    below, above = weight[:-1], weight[-1] - weight[:-1]
    possible = (below > 0) & (above > 0)
    if not possible.any():
        return -np.inf  # a constant image has no dark part
    below, above = np.where(possible, below, 1), np.where(possible, above, 1)
    distance = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = np.where(possible, below * above * distance**2, -1)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(values[best[len(best) // 2]])


@register("majority", label="majority class", tasks=("classification", "segmentation"), trained=False)
def fit_majority(training: ChipArrays, seed: int) -> Predictor:
    """The most frequent class of the training split; a patch's probabilities are the class shares there."""
    classes, maps = len(training.manifest.task.classes), training.manifest.task.kind == "segmentation"
    counts = np.zeros(256, np.int64)
    for chip in training:
        counts += np.bincount(chip.label[chip.valid] if maps else np.atleast_1d(chip.label), minlength=256)
    counts = counts[:classes]
    most, shares = np.uint8(counts.argmax()), np.round(255 * counts / max(1, counts.sum())).astype(np.uint8)
    if maps:
        return lambda chip: (np.full(chip.valid.shape, most), None)
    return lambda chip: (most, shares)


def fit_predict(cfg: Any, run_folder: Path) -> Path:
    """Fit the row that ``cfg.MODEL.NAME`` names and write the predictions of every split but the training one.

    Args:
        cfg: configuration; DATA, MODEL and SEED are used.
        run_folder: gets ``<split>/predictions.h5``, ``config.yaml`` and, last, ``run.json``.

    Raises:
        ConfigError: unknown argument or one that does not fit, or a row of another task.
    """
    row, folder = find_model(cfg.MODEL.NAME), Path(cfg.DATA.ROOT) / cfg.DATA.NAME / cfg.DATA.VERSION
    arguments = configs.to_dict(cfg.MODEL.ARGS)
    known = list(inspect.signature(row.build).parameters)[2:]
    if unknown := sorted(set(arguments) - set(known)):
        raise ConfigError(
            f"{cfg.MODEL.NAME} has no argument {unknown[0]!r}",
            where="MODEL.ARGS",
            hint=f"it takes {', '.join(known) or 'none'}",
        )
    manifest, arrays = load_manifest(folder), ChipArrays
    too_many = manifest.task.kind == "segmentation" and not manifest.task.binary and cfg.MODEL.NAME not in MANY_CLASSES
    if manifest.task.kind not in row.tasks or too_many:
        wanted = "binary segmentation" if "segmentation" in row.tasks else row.tasks[0]
        found = f"{manifest.task.kind} with {len(manifest.task.classes)} classes"
        raise ConfigError(f"{cfg.MODEL.NAME} is for {wanted}, {manifest.name} is {found}", where="MODEL.NAME")

    if manifest.task.kind == "regression":
        from .harmonization.rows import PairArrays as arrays  # its rows resample with torch
    elif cfg.DATA.PARTIAL:
        arrays = partial(ChipArrays, partial=True)

    training = arrays(folder, cfg.DATA.TRAIN_SPLIT, cfg.DATA.BANDS)
    start = time.perf_counter()
    try:
        predict = row.build(training, cfg.SEED, **arguments)
    except (TypeError, ValueError, AttributeError) as error:
        if not arguments:
            raise
        what = f"{arguments} make no {cfg.MODEL.NAME} ({str(error)[:200]})"
        raise ConfigError(what, where="MODEL.ARGS") from error
    seconds = time.perf_counter() - start
    dataset = dataset_of(manifest, cfg.DATA.ROOT)
    for split in (s.name for s in manifest.splits if s.name != cfg.DATA.TRAIN_SPLIT and s.chips):
        chips = arrays(folder, split, cfg.DATA.BANDS)
        write_predictions(
            run_folder / split / PREDICTIONS_NAME,
            dataset=dataset.model_dump(),
            split=split,
            model=cfg.MODEL.NAME,
            chip_ids=chips.chip_ids,
            chunks=predict_chips(predict, chips),
        )
    info = RunInfo(
        dataset=dataset,
        model=cfg.MODEL.NAME,
        arguments=arguments,
        label=row.label,
        trained=cfg.MODEL.NAME in LEARNING,
        seed=cfg.SEED,
        train_seconds=seconds,
        provenance=provenance(),
    )
    write_run(run_folder, info, configs.dump(cfg))
    return run_folder


def predict_chips(predict: Predictor, chips: ChipArrays) -> Iterator[Prediction]:
    """Predictions in the chips' order, a few chips at a time in threads; 255 (NaN) where the input is invalid."""
    from rich.progress import track

    def one(chip: Chip) -> Prediction:
        class_map, probability = predict(chip)
        if class_map.ndim == 3:
            return np.where(chip.valid, class_map.clip(0), np.nan).astype(np.float16), None
        known = chip.valid if class_map.ndim else chip.valid.any()
        return np.where(known, class_map, np.uint8(NODATA)), probability

    threads, ahead, stream = usable_cores(), deque(), iter(chips)
    with ThreadPoolExecutor(threads) as pool:
        for _ in track(range(len(chips)), f"predict {chips.split}", transient=True, disable=not sys.stderr.isatty()):
            while len(ahead) <= threads and (chip := next(stream, None)) is not None:
                ahead.append(pool.submit(one, chip))
            yield ahead.popleft().result()


def _dark_band(training: ChipArrays, band: str) -> int:
    names = [b.name for b in training.bands]
    if band:
        if band not in names:
            raise ConfigError(f"no band {band!r}, there is {', '.join(names)}", where="MODEL.ARGS.band")
        return names.index(band)
    usual = [i for i, name in enumerate(names) if len(names) == 1 or name.lower() in COPOLARISED]
    if not usual:
        raise ConfigError(
            f"which of the bands {', '.join(names)} is co-polarised?", where="MODEL.ARGS.band", hint="name it"
        )
    return usual[0]


def _values(chip: Chip, number: int, partial: bool) -> np.ndarray:
    values = chip.image[number][chip.valid]
    return values[values != 0] if partial else values  # 0 where this one band has no data


def _dark(chip: Chip, number: int, threshold: float) -> np.ndarray:
    return (chip.image[number] <= threshold).astype(np.uint8)


def _chip_threshold(values: np.ndarray) -> float:
    if not values.size or values.min() == values.max():
        return -np.inf
    counts, edges = np.histogram(values, 256)
    return otsu_threshold(counts, (edges[:-1] + edges[1:]) / 2)


def _histogram_edges(training: ChipArrays, number: int) -> np.ndarray:
    """Bins between the extremes, but at most twice the central range away: an outlier must not blur them."""
    name = training.bands[number].name
    found = [s for s in training.manifest.statistics if s.array == training.image_name and s.band == name and s.pixels]
    if not found:
        raise ConfigError(f"band {name!r} has no valid pixel in the training split", where=training.manifest.name)
    low, high = found[0].p02, found[0].p98
    low, high = max(found[0].min, 3 * low - 2 * high), min(found[0].max, 3 * high - 2 * low)
    return np.linspace(low, high if high > low else low + 1, OTSU_BINS + 1)
