"""Example maps of a run: which scenes are shown, chosen by score, and their PNGs, for the page and for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..benchmark import reflectance
from ..benchmark.counting import UnitCounts, count_chip, invalid_pixels, labelled_chips, sum_chip, target_chips
from ..benchmark.evaluate import kind_of, placed
from ..benchmark.figures import Counts
from ..benchmark.records import HEADLINE
from ..benchmark.scores import unit_scores
from ..datasets.files import write_atomic
from ..datasets.reader import Shard, open_split
from ..datasets.spec import Array, Manifest
from ..errors import InputError
from ..models.predictions import PREDICTIONS_NAME, Predictions
from ..models.runs import read_run
from .gallery import safe_name
from .panels import IGNORE, RGB, Panel, band_limits, composite, example_map, reflectance_map, stretch


@dataclass(frozen=True)
class Scored:
    """One chip: ``error`` is its share of wrong pixels, one minus a patch's probability of the truth, or the RMSE."""

    error: float
    number: int  # in the split
    chip_id: str
    scene: int  # in the manifest
    counts: UnitCounts


def write_examples(
    run: str | Path, split: str, out: str | Path, n: int = 3, *, dataset: str | Path | None = None
) -> list[Path]:
    """Draw the worst scenes of a run and, for n > 1, the median one: of each the chip with the greatest error.

    Scenes are ordered by their headline, chips by their share of wrong pixels (patches: by one minus the probability
    of the truth, or by right and wrong; reflectance: by the RMSE), ties by their place in the split, so the choice
    never depends on chance.

    Args:
        run: a run folder that has been evaluated on the split.
        split: name of the split.
        out: folder for ``example-<split>-<i>-<worst|poor|median>-<scene>~<chip id>.png``; older ones of the split go.
        n: how many scenes, from 1 to 20.
        dataset: version folder of the data, as `evaluate_run` was given it; None: where the run says.

    Raises:
        InputError: n out of range, or a split without any scored pixel.
        FormatError: predictions that are not for this data.
    """
    if not 1 <= n <= 20:
        raise InputError(f"{n} example maps, expected 1 to 20")
    out, info = Path(out), read_run(run)
    folder, place = placed(run, split, dataset)
    manifest, shards = open_split(folder, split)
    predictions = Predictions(place / PREDICTIONS_NAME)
    predictions.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
    chosen = _choose(list(_scored(manifest, shards, predictions)), manifest, n)
    if not chosen:
        raise InputError("no scored pixel in this split, so there is nothing to show", where=f"{folder} {split}")
    paths = []
    for i, (word, chip) in enumerate(chosen, 1):
        png = _draw(manifest, shards, predictions, chip, info.label or info.model)
        scene = safe_name(manifest.scenes[chip.scene].id)
        paths.append(out / f"example-{split}-{i}-{word}-{scene[:80]}~{safe_name(chip.chip_id)[:80]}.png")
        write_atomic(paths[-1], png)
    for old in set(out.glob(f"example-{split}-*.png")) - set(paths):
        old.unlink()
    return paths


def _scored(manifest: Manifest, shards: Sequence[Shard], predictions: Predictions) -> Iterator[Scored]:
    number = 0
    for shard in shards:
        for chip_id, scene, counts, error in _errors(manifest, shard, predictions):
            if counts.pixels:
                yield Scored(error, number, chip_id, scene, counts)
            number += 1


def _errors(manifest: Manifest, shard: Shard, predictions: Predictions) -> Iterator[tuple[str, int, UnitCounts, float]]:
    if kind_of(manifest) == "harmonization":
        indices = reflectance.index_bands([band.name for band in manifest.label_array.bands])
        for chip_id, scene, truth, valid in target_chips(shard):
            counts = sum_chip(truth, predictions.read(chip_id)[0], valid, indices)
            squared = counts.sums["squared_error"].mean() / max(counts.pixels, 1)
            yield chip_id, scene, counts, float(np.sqrt(squared))
        return
    for chip_id, scene, truth in labelled_chips(shard):
        prediction, probability = predictions.read(chip_id)
        counts = count_chip(truth, prediction, len(manifest.task.classes), boundary=False)
        if not truth.ndim and probability is not None and truth != IGNORE:
            error = 1 - float(probability[int(truth)]) / 255
        else:
            error = 1 - int(np.trace(counts.confusion)) / max(counts.pixels, 1)
        yield chip_id, scene, counts, error


def _choose(chips: Sequence[Scored], manifest: Manifest, n: int) -> list[tuple[str, Scored]]:
    """The worst scenes and the median one, each with its worst chip."""
    by_scene: dict[int, list[Scored]] = {}
    for chip in chips:
        by_scene.setdefault(chip.scene, []).append(chip)
    scenes = sorted(by_scene)
    if not scenes:
        return []
    totals = []
    for scene in scenes:
        totals.append(UnitCounts(np.zeros_like(by_scene[scene][0].counts.confusion)))
        for chip in by_scene[scene]:
            totals[-1].add(chip.counts)
    task = kind_of(manifest)
    names = [c.name for c in manifest.task.classes] or [band.name for band in manifest.label_array.bands]
    sums = {key: np.array([[t.sums[key] for t in totals]]) for key in totals[0].sums}
    scores = unit_scores(task, names, Counts(np.array([[t.confusion for t in totals]]), sums=sums or None))
    heads = [s[HEADLINE[task]] for s in scores]
    worst = sorted((i for i, s in enumerate(heads) if s is not None), key=lambda i: (heads[i], i))
    worst += [i for i, s in enumerate(heads) if s is None]  # a scene without the class that the score is about
    if n == 1:
        places = {0: "worst"}
    else:
        middle = max((len(worst) - 1) // 2, n - 1)
        places = {0: "worst"} | dict.fromkeys(range(1, n - 1), "poor") | {middle: "median"}
    chosen = [(word, by_scene[scenes[worst[i]]]) for i, word in places.items() if i < len(worst)]
    return [(word, max(members, key=lambda chip: (chip.error, -chip.number))) for word, members in chosen]


def _draw(manifest: Manifest, shards: Sequence[Shard], predictions: Predictions, chip: Scored, model: str) -> bytes:
    shard, row = _locate(shards, chip.number)
    prediction = predictions.read(chip.chip_id)[0]
    if kind_of(manifest) == "harmonization":
        truth, valid = next((t, v) for c, _, t, v in target_chips(shard) if c == chip.chip_id)
        bands = [band.name for band in manifest.label_array.bands]
        limits = dict(zip(bands, band_limits(np.where(valid, truth, np.nan)), strict=True))
        title = f"{model}: {chip.chip_id}, RMSE {chip.error:.4f}"
        return reflectance_map(_reflectance(shard, row, limits), truth, prediction, valid, bands, title=title)
    truth = next(t for c, _, t in labelled_chips(shard) if c == chip.chip_id)
    title = f"{model}: {chip.chip_id}" + (f", {chip.error:.1%} wrong" if truth.ndim else "")
    return example_map(_inputs(shard, row), truth, prediction, manifest.task.classes, title=title)


def _locate(shards: Sequence[Shard], number: int) -> tuple[Shard, int]:
    for shard in shards:
        if number < shard.n:
            return shard, number
        number -= shard.n
    raise IndexError(number)


def _image(shard: Shard, row: int) -> tuple[Array, NDArray[np.float64]]:
    """The image in physical units, NaN where it has no data."""
    array = next(a for a in shard.manifest.arrays if a.role == "image")
    stored = shard.read(array.name, row)
    scale, offset = (np.array([getattr(b, k) for b in array.bands])[:, None, None] for k in ("scale", "offset"))
    image = stored * scale + offset
    image[:, invalid_pixels(stored[None], [b.nodata for b in array.bands])[0]] = np.nan
    return array, image


def _inputs(shard: Shard, row: int) -> list[Panel]:
    """The image as red, green, blue where it has these bands, else its first two bands, each stretched."""
    array, image = _image(shard, row)
    names = [b.name for b in array.bands]
    if set(RGB) <= set(names):
        return [("red, green, blue", composite(image, names, band_limits(image)))]
    return [(_band_title(array, i), stretch(image[i])) for i in range(min(2, len(names)))]


def _reflectance(shard: Shard, row: int, limits: dict[str, NDArray]) -> list[Panel]:
    """The input in the target's stretch, where it has the target's bands."""
    array, image = _image(shard, row)
    names = [b.name for b in array.bands]
    own = band_limits(image)
    shared = np.array([limits.get(name, own[i]) for i, name in enumerate(names)])
    return [(f"input, {array.shape[-1]} px", composite(image, names, shared))]


def _band_title(array: Array, i: int) -> str:
    unit = array.bands[i].unit
    return array.bands[i].name + (f" ({unit})" if unit not in ("", "1") else "")
