"""Example maps: input, label, prediction and errors of single chips as PNG, for the page and for people."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..benchmark.counting import count_chip, invalid_pixels, labelled_chips
from ..datasets.files import write_atomic
from ..datasets.reader import Shard, open_split
from ..datasets.spec import Array, ClassDef, Manifest
from ..errors import InputError
from ..models.predictions import PREDICTIONS_NAME, Predictions
from ..models.runs import read_run

IGNORE = 255
NOT_SCORED = "#9e9e9e"
RIGHT, WRONG = "#e9edef", "#c62828"
BINARY = (("missed", "#c62828"), ("invented", "#f5a623"), ("found", "#3f5561"))  # only errors in colour
PANEL_INCHES, DOTS_PER_INCH, COLOURS = 2.35, 100, 200  # the page shows them at about half size: large letters
RGB = ("red", "green", "blue")

Panel = tuple[str, NDArray]


def example_map(
    inputs: Sequence[Panel], truth: NDArray, prediction: NDArray, classes: Sequence[ClassDef], *, title: str = ""
) -> bytes:
    """Draw one chip.

    Args:
        inputs: name and image, float (H,W) or (H,W,3) in 0 to 1, NaN where there is no data.
        truth: uint8 (H,W) class ids, or () for a patch; 255 = not scored.
        prediction: the same of the model; 255 on a scored pixel is an error.
        classes: names and colours by id.
        title: one line above.

    Returns:
        The bytes of a PNG: inputs, label, prediction, errors, legend; the same arrays give the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    maps: list[Panel] = []
    legend = [(c.name, c.color) for c in classes]
    if truth.ndim == 2:
        errors, error_legend = error_map(truth, prediction, classes)
        maps = [("label", _colours(truth, classes)), ("prediction", _colours(prediction, classes)), ("errors", errors)]
        legend += error_legend
        if (truth == IGNORE).any() or (prediction == IGNORE).any():
            legend.append(("not scored", NOT_SCORED))
    else:
        verdict = f"label: {_name(truth, classes)}; prediction: {_name(prediction, classes)}"
        title, legend = f"{title}\n{verdict}" if title else verdict, []
    panels = [*inputs, *maps]
    figure = Figure((max(PANEL_INCHES * len(panels), 4.0), PANEL_INCHES + 0.9), dpi=DOTS_PER_INCH, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    for axes, (name, image) in zip(np.ravel(figure.subplots(1, len(panels), squeeze=False)), panels, strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_facecolor(NOT_SCORED)
        axes.set_title(name, fontsize=13, parse_math=False)
        axes.set_xticks([])
        axes.set_yticks([])
    _annotate(figure, title, legend)
    canvas.draw()
    return _png(np.asarray(canvas.buffer_rgba())[..., :3])


def error_map(
    truth: NDArray, prediction: NDArray, classes: Sequence[ClassDef]
) -> tuple[NDArray[np.float64], list[tuple[str, str]]]:
    """Colours (H,W,3) of right and wrong pixels with their legend; with two classes missed and invented differ."""
    scored, wrong = truth != IGNORE, prediction != truth
    out = np.empty((*truth.shape, 3))
    out[:] = _rgb(RIGHT)
    if len(classes) == 2:
        for (_, colour), where in zip(
            BINARY, (wrong & (truth == 1), wrong & (truth == 0), ~wrong & (truth == 1)), strict=True
        ):
            out[where] = _rgb(colour)
        legend = [(f"{classes[1].name} {what}", colour) for what, colour in BINARY]
    else:
        out[wrong] = _rgb(WRONG)
        legend = [("right", RIGHT), ("wrong", WRONG)]
    out[~scored] = _rgb(NOT_SCORED)
    return out, legend


def write_examples(
    run: str | Path, split: str, out: str | Path, n: int = 3, *, root: str | Path | None = None
) -> list[Path]:
    """Draw the worst chip of a run, the median one, and for n > 2 such as lie evenly between.

    Chips are ordered by their share of wrong pixels (patches: by one minus the probability of the truth, or by right
    and wrong), ties by their place in the split, so the choice never depends on chance.

    Args:
        run: a run folder that holds ``<split>/predictions.h5``.
        split: name of the split.
        out: folder for ``example-<split>-<i>-<worst|poor|median>-<chip id>.png``; older ones of the split go.
        n: how many, from 1 to 20.
        root: folder of all data sets, where it is not where the run says.

    Raises:
        InputError: n out of range, or a split without any scored pixel.
        FormatError: predictions that are not for this data.
    """
    if not 1 <= n <= 20:
        raise InputError(f"{n} example maps, expected 1 to 20")
    run, out, info = Path(run), Path(out), read_run(run)
    folder = (Path(root) / info.dataset.name / info.dataset.version) if root is not None else info.dataset.folder
    manifest, shards = open_split(folder, split)
    predictions = Predictions(run / split / PREDICTIONS_NAME)
    predictions.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
    chosen = _choose(_errors(manifest, shards, predictions), n)
    if not chosen:
        raise InputError("no scored pixel in this split, so there is nothing to show", where=f"{folder} {split}")
    paths = []
    for i, (word, (error, number, chip_id)) in enumerate(chosen, 1):
        shard, row = _locate(shards, number)
        truth = next(t for c, _, t in labelled_chips(shard) if c == chip_id)
        title = f"{info.label or info.model}: {chip_id}" + (f", {error:.1%} wrong" if truth.ndim else "")
        png = example_map(_inputs(shard, row), truth, predictions.read(chip_id)[0], manifest.task.classes, title=title)
        paths.append(out / f"example-{split}-{i}-{word}-{re.sub('[^A-Za-z0-9._-]', '_', chip_id)}.png")
        write_atomic(paths[-1], png)
    for old in set(out.glob(f"example-{split}-*.png")) - set(paths):
        old.unlink()
    return paths


Scored = tuple[float, int, str]  # share wrong, number in the split, chip id


def _errors(manifest: Manifest, shards: Sequence[Shard], predictions: Predictions) -> list[Scored]:
    found, number = [], 0
    for shard in shards:
        for chip_id, _, truth in labelled_chips(shard):
            prediction, probability = predictions.read(chip_id)
            if not truth.ndim and probability is not None and truth != IGNORE:
                found.append((1 - float(probability[int(truth)]) / 255, number, chip_id))
            elif truth.ndim or truth != IGNORE:
                confusion = count_chip(truth, prediction, len(manifest.task.classes), boundary=False).confusion
                if total := int(confusion.sum()):
                    found.append((1 - int(np.trace(confusion)) / total, number, chip_id))
            number += 1
    return found


def _choose(errors: Sequence[Scored], n: int) -> list[tuple[str, Scored]]:
    ordered = sorted(errors, key=lambda e: (-e[0], e[1]))
    if not ordered:
        return []
    ranks = sorted({round(r) for r in np.linspace(0, (len(ordered) - 1) // 2, n)}) if n > 1 else [0]
    words = ["worst", *["poor"] * (len(ranks) - 2), "median"][: len(ranks)]
    return list(zip(words, (ordered[r] for r in ranks), strict=True))


def _locate(shards: Sequence[Shard], number: int) -> tuple[Shard, int]:
    for shard in shards:
        if number < shard.n:
            return shard, number
        number -= shard.n
    raise IndexError(number)


def _inputs(shard: Shard, row: int) -> list[Panel]:
    """The image as red, green, blue where it has these bands, else its first two bands, each stretched."""
    array = next(a for a in shard.manifest.arrays if a.role == "image")
    stored = shard.read(array.name, row)
    image = stored.astype(np.float64)
    image[:, invalid_pixels(stored[None], [b.nodata for b in array.bands])[0]] = np.nan
    names = [b.name for b in array.bands]
    if set(RGB) <= set(names):
        return [("red, green, blue", np.nan_to_num(np.stack([stretch(image[names.index(c)]) for c in RGB], -1)))]
    return [(_band_title(array, i), stretch(image[i])) for i in range(min(2, len(names)))]


def _band_title(array: Array, i: int) -> str:
    unit = array.bands[i].unit
    return array.bands[i].name + (f" ({unit})" if unit not in ("", "1") else "")


def stretch(band: NDArray) -> NDArray[np.float64]:
    """(H,W) to 0 to 1 between the 2nd and 98th percentile of its own valid pixels; NaN stays."""
    known = band[np.isfinite(band)]
    low, high = np.percentile(known, (2, 98)) if known.size else (0.0, 1.0)
    return np.clip((band - low) / max(high - low, 1e-12), 0, 1)


def _colours(classes_of: NDArray, classes: Sequence[ClassDef]) -> NDArray[np.float64]:
    table = np.tile(_rgb(NOT_SCORED), (256, 1))
    table[: len(classes)] = [_rgb(c.color) for c in classes]
    return table[classes_of]


def _name(label: NDArray, classes: Sequence[ClassDef]) -> str:
    return classes[int(label)].name if int(label) < len(classes) else "none"


def _rgb(colour: str) -> NDArray[np.float64]:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def _annotate(figure, title: str, legend: Sequence[tuple[str, str]]) -> None:
    from matplotlib.patches import Patch

    figure.subplots_adjust(0.01, 0.12 if legend else 0.02, 0.99, 0.79, wspace=0.04)
    if title:
        figure.suptitle(title, fontsize=13, x=0.01, ha="left", y=0.985, parse_math=False)
    if legend:
        drawn = figure.legend(
            handles=[Patch(facecolor=c, edgecolor="#777", label=name) for name, c in legend],
            loc="lower left",
            ncols=len(legend),
            frameon=False,
            fontsize=12,
            handlelength=1.1,
            columnspacing=1.2,
            bbox_to_anchor=(0.0, -0.02),
        )
        for text in drawn.get_texts():
            text.set_parse_math(False)


def _png(rgb: NDArray[np.uint8]) -> bytes:
    """A palette PNG: a third of the bytes of a full-colour one, and pages hold many."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).quantize(COLOURS, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()
