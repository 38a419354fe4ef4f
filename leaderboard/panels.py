"""Drawings of single chips: input, label or target, prediction and errors side by side as PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..datasets.spec import ClassDef

IGNORE = 255
NOT_SCORED = "#9e9e9e"
RIGHT, WRONG = "#e9edef", "#c62828"
BINARY = (("missed", "#c62828"), ("invented", "#f5a623"), ("found", "#3f5561"))  # only errors in colour
SCALE = ((0.0, RIGHT), (0.05, "#f5a623"), (0.1, WRONG))  # of reflectance errors, the same for every chip and model
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
    return _draw([*inputs, *maps], title, legend)


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


def reflectance_map(
    inputs: Sequence[Panel],
    truth: NDArray,
    prediction: NDArray,
    valid: NDArray[np.bool_],
    bands: Sequence[str],
    *,
    title: str = "",
) -> bytes:
    """Draw one chip of a harmonization: target and prediction in the same stretch, and the mean absolute error.

    Args:
        inputs: as in ``example_map``.
        truth: float (C,H,W) reflectance of the target.
        prediction: the same of the model.
        valid: bool (H,W), where the chip is scored.
        bands: names of the C bands; red, green and blue are shown where there are all three, else the first band.
        title: one line above.
    """
    error = np.abs(prediction.astype(np.float64) - truth).mean(0)
    places, colours = zip(*SCALE, strict=True)
    stops = np.array([_rgb(c) for c in colours])
    shown = np.stack([np.interp(np.nan_to_num(error, nan=places[-1]), places, stops[:, k]) for k in range(3)], -1)
    shown[~valid] = _rgb(NOT_SCORED)
    seen = [np.where(valid, image, np.nan) for image in (truth, prediction)]
    limits = band_limits(seen[0])
    panels = [
        *inputs,
        ("target", composite(seen[0], bands, limits)),
        ("prediction", composite(seen[1], bands, limits)),
        ("mean error", shown),
    ]
    words = [f"{place:g}" for place in places]
    legend = [("error " + words[0], colours[0]), *zip(words[1:-1], colours[1:-1], strict=True)]
    return _draw(panels, title, [*legend, (words[-1] + " or more", colours[-1]), ("not scored", NOT_SCORED)])


def composite(image: NDArray, bands: Sequence[str], limits: NDArray) -> NDArray[np.float64]:
    """(H,W,3) from red, green and blue of (C,H,W), or (H,W) of its first band; ``limits`` (C,2) become 0 and 1.

    What is not finite is grey in colours, and NaN in a single band.
    """
    low, high = limits[:, :1, None], limits[:, 1:, None]
    scaled = np.clip((image - low) / np.maximum(high - low, 1e-12), 0, 1)
    if not set(RGB) <= set(bands):
        return scaled[0]
    colours = scaled[[bands.index(c) for c in RGB]].transpose(1, 2, 0)
    return np.where(np.isfinite(colours).all(-1, keepdims=True), colours, _rgb(NOT_SCORED))


def band_limits(image: NDArray) -> NDArray[np.float64]:
    """(C,2): 2nd and 98th percentile of each band of (C,H,W) over its finite values; 0 and 1 without any."""
    known = [band[np.isfinite(band)] for band in image]
    return np.array([np.percentile(band, (2, 98)) if band.size else (0.0, 1.0) for band in known])


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


def _draw(panels: Sequence[Panel], title: str, legend: Sequence[tuple[str, str]]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
    return _png(np.asarray(canvas.buffer_rgba())[..., :3], [colour for _, colour in legend])


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


def _png(rgb: NDArray[np.uint8], keep: Sequence[str]) -> bytes:
    """A palette PNG: a third of the bytes of a full-colour one, and pages hold many. ``keep``: exact colours."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(rgb))
    found = image.quantize(COLOURS, dither=Image.Dither.NONE).getpalette()[: 3 * COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette(found + [int(c[i : i + 2], 16) for c in keep for i in (1, 3, 5)])
    buffer = io.BytesIO()
    image.quantize(palette=palette, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
