"""Predictions of models outside the registry as a run folder that ``tidemark evaluate`` scores like any other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ..datasets.reader import open_split
from ..datasets.spec import Manifest, describe_validation
from ..errors import FormatError, InputError
from ..models.predictions import NODATA, PREDICTIONS_NAME, Prediction, write_predictions
from ..models.runs import RUN_NAME, RunInfo, dataset_of, provenance, read_run, write_run
from .foreign_files import ChipPlace, Source, chip_places, find_sources, list_files, read
from .numpy_files import holds

PERCENT = 100
MAX_REFLECTANCE = 16.0  # far beyond any; integers scaled by 10 000 are not


def import_predictions(
    paths: Iterable[str | Path],
    dataset: str | Path,
    split: str,
    out: str | Path,
    *,
    model: str = "foreign",
    label: str = "",
    seed: int | None = None,
    parameters: int = 0,
    probabilities: Iterable[str | Path] = (),
) -> Path:
    """Bring class maps, patch classes or reflectance of any model into ``<out>/<split>/predictions.h5``.

    Args:
        paths: GeoTIFFs (one a chip, or whole-scene maps that the chips are cut from), ``.npy`` by chip id or ``.npz``;
            folders are searched. See `find_sources`. Class maps hold the data set's class ids, 255 = no answer;
            patches one class id; reflectance (C,H,W) floats 0…1.
        dataset: version folder of the data set.
        split: name of the split; every chip of it must be there once.
        out: run folder; other splits of the same model may be there already.
        model: name in records and folders.
        label: name in tables; the model's name by default.
        seed: of this run, None if unknown.
        parameters: of the model, 0 if unknown.
        probabilities: files as above: floats 0…1 or uint8 0…255, of class 1 of a binary map (H,W) or of every class of
            a patch (K,). Those in percent, as ``tidemark predict`` writes them beside its maps, are known by their
            unit, and by ``_probability`` in their name among ``paths``.

    Returns:
        The run folder.

    Raises:
        InputError: no files, or a run folder of another model or data set.
        FormatError: missing or repeated chips (counted and named), wrong shapes, grids or values, pickles.
        SceneError: a GeoTIFF that is none.
    """
    out = Path(out)
    manifest, shards = open_split(dataset, split)
    places = chip_places(manifest, shards)
    info = _run_info(manifest, Path(dataset), model, label, seed, parameters)
    _check_run(out, split, info)
    regression, shape = manifest.task.kind == "regression", manifest.label_array.shape
    maps, given = _layers(paths, probabilities, places)
    if given and (regression or shape and not manifest.task.binary):
        raise InputError("probabilities are kept for patches and binary maps only", where=manifest.name)
    with tempfile.TemporaryDirectory(prefix="tidemark-import-") as name:
        scratch, layer = Path(name), "reflectance" if regression else "prediction"
        answers = find_sources(maps, places, shape, layer, scratch)
        _check_complete(answers, places, layer)
        levels: dict[str, list[Source]] = {}
        if given:
            levels = find_sources(given, places, shape or (len(manifest.task.classes),), "probability", scratch)
            _check_complete(levels, places, "probability")

        def chips() -> Iterator[Prediction]:
            for chip in places:
                if regression:
                    yield _reflectance(answers[chip][0], shape), None
                else:
                    classes = _classes(answers[chip][0], len(manifest.task.classes))
                    yield classes, _probability(levels[chip][0], classes) if levels else None

        write_predictions(
            out / split / PREDICTIONS_NAME,
            dataset=info.dataset.model_dump(),
            split=split,
            model=model,
            chip_ids=list(places),
            chunks=chips(),
        )
    if not (out / RUN_NAME).exists():
        write_run(out, info, "")  # no recipe of ours
    return out


def _run_info(manifest: Manifest, folder: Path, model: str, label: str, seed: int | None, parameters: int) -> RunInfo:
    root = folder.absolute().parent.parent
    if (folder.absolute().parent.name, folder.absolute().name) != (manifest.name, manifest.version):
        raise InputError(
            f"expected a folder …/{manifest.name}/{manifest.version}",
            where=folder,
            hint="data sets lie so in their root",
        )
    try:
        return RunInfo(
            dataset=dataset_of(manifest, root),
            model=model,
            label=label,
            trained=True,
            seed=seed,
            parameters=parameters,
            train_seconds=0.0,
            provenance=provenance(),
        )
    except ValidationError as error:
        raise InputError(describe_validation(error), where="the model's name, label, seed or parameters") from None


def _check_run(out: Path, split: str, info: RunInfo) -> None:
    """Another split of the same foreign model may be there, and nothing else."""
    if not (out / RUN_NAME).exists():
        return
    if (out / split / PREDICTIONS_NAME).exists():
        raise InputError(f"there are predictions for {split} already", where=out, hint="give another --out")
    there = read_run(out)
    for key in ("dataset", "model", "label", "seed", "parameters", "weights_sha256"):
        if getattr(there, key) != getattr(info, key):
            raise InputError(
                f"the run there has another {key}: expected {getattr(info, key)}, found {getattr(there, key)}"[:400],
                where=out,
                hint="give another --out",
            )


def _layers(
    paths: Iterable[str | Path], probabilities: Iterable[str | Path], places: dict[str, ChipPlace]
) -> tuple[list[Path], list[Path]]:
    """Files of the answers, and of their probabilities: those given as such, and those that call themselves so."""
    found, given = list_files(paths), list(probabilities)
    chances = list_files(given) if given else []
    named = [path for path in found if path.stem.endswith("_probability") and path.stem not in places]
    packed = [path for path in found if path.suffix.lower() == ".npz" and holds(path, "probability")]
    taken = {path.absolute() for path in (*chances, *named)}
    maps = [path for path in found if path.absolute() not in taken]
    return maps, list(dict.fromkeys([*chances, *named, *packed]))


def _check_complete(sources: dict[str, list[Source]], places: dict[str, ChipPlace], layer: str) -> None:
    missing = [chip for chip in places if chip not in sources]
    repeated = [chip for chip, found in sources.items() if len(found) > 1]
    faults = [
        f"{len(chips)} {what} ({', '.join(chips[:3])}{', …' if len(chips) > 3 else ''})"
        for what, chips in (("missing", missing), ("repeated", repeated))
        if chips
    ]
    if faults:
        hint = None
        if repeated:
            hint = "chip {} is in {} and {}".format(repeated[0], *(s.path.name for s in sources[repeated[0]][:2]))
        raise FormatError(f"{layer}: of {len(places)} chips {' and '.join(faults)}", hint=hint)


def _classes(source: Source, classes: int) -> NDArray[np.uint8]:
    values, empty, _ = _values(source)
    if values.dtype.kind == "f":
        if np.isnan(values[~empty]).any():
            raise _fault(source, "NaN is no class", hint="255 says that there is no answer")
        values = np.where(empty, NODATA, values)
    known = empty | (values == NODATA) | ((values >= 0) & (values < classes) & (values == np.floor(values)))
    if not known.all():
        found = ", ".join(str(value) for value in np.unique(values[~known])[:3])
        raise _fault(source, f"expected classes 0 to {classes - 1} or {NODATA}, found {found}")
    return np.where(empty, NODATA, values).astype(np.uint8)


def _probability(source: Source, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values, empty, unit = _values(source)
    if values.dtype == np.uint8 and unit not in ("%", "percent"):
        return np.where(empty, 0, values).astype(np.uint8)
    if values.dtype.kind != "f" and values.dtype != np.uint8:
        raise _fault(source, f"expected probabilities as floats or uint8, found {values.dtype}")
    scaled = values.astype(np.float64) / (PERCENT if unit in ("%", "percent") else 1)
    known = ~empty & (scaled >= 0) & (scaled <= 1)
    wrong = ~known & ~empty & (classes != NODATA)  # where there is no answer, there may be no probability either
    if wrong.any():
        raise _fault(source, f"expected probabilities 0 to 1, found {values[wrong][0]}")
    return np.round(255 * np.where(known, scaled, 0)).astype(np.uint8)


def _reflectance(source: Source, shape: tuple[int, ...]) -> NDArray[np.float16]:
    values, empty, _ = _values(source, shape[0])
    if values.dtype.kind != "f":
        raise _fault(source, f"expected reflectance 0 to 1 as floats, found {values.dtype}", hint="divide by its scale")
    values = np.where(empty, np.nan, values)
    if (np.abs(values) > MAX_REFLECTANCE).any():
        raise _fault(
            source, f"expected reflectance 0 to 1, found {np.nanmax(np.abs(values)):g}", hint="divide by its scale"
        )
    return values.astype(np.float16)


def _values(source: Source, bands: int | None = None) -> tuple[NDArray, NDArray[np.bool_], str]:
    values, empty, unit = read(source, bands or 1)
    if values.dtype.kind not in "biuf":
        raise _fault(source, f"expected numbers, found {values.dtype}")
    if bands is None and source.load is None:
        values, empty = values[0], empty[0]
    return values, empty, unit


def _fault(source: Source, what: str, hint: str | None = None) -> FormatError:
    return FormatError(f"chip {source.place.id}: {what}", where=source.path, hint=hint)
