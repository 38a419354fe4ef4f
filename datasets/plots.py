"""Pictures of chips: one sample, or a contact sheet of many, drawn without any global state.

Backscatter is shown in dB. Bands are stretched between the 2nd and 98th percentile of the training split (manifest),
the same for every chip, so that chips compare; bands that are stored as stretched 8-bit values are shown as they are.
Masks have the classes' colours of the manifest.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import InputError
from .files import write_atomic
from .reader import Shard, open_split
from .spec import Band, Manifest

IGNORED_COLOR, NO_DATA_COLOR, SIMULATED_COLOR = "#c9c9c9", "#e7d4f0", "#b3261e"
LINEAR_UNITS = frozenset({"linear", "linear power", "power", "intensity"})
STRETCHED_UNITS = frozenset({"8-bit stretched", "8-bit"})
MAX_BAND_PANELS = 4
PANELS_PER_ROW = 9
PANEL_INCHES, GAP_INCHES, TITLE_INCHES = 1.5, 0.06, 0.36
HEADING_CHARACTERS, NOTE_CHARACTERS = 11, 17  # an inch holds so many


@dataclass(frozen=True)
class Panel:
    """A picture ``rgb`` float (H, W, 3) in 0…1 with its title, and how its values were stretched."""

    title: str
    rgb: np.ndarray
    stretch: str = ""
    is_input: bool = True


@dataclass(frozen=True)
class Chip:
    """What is drawn of one chip: its panels and, for a data set of patches, the label as text with its colour."""

    id: str
    panels: list[Panel]
    caption: str = ""
    color: str = "black"


def plot_sample(
    sample: Mapping[str, Any],
    manifest: Manifest,
    bands: Sequence[str] | None = None,
    suptitle: str | None = None,
) -> Figure:
    """Draw one sample: its bands, the label and, where there is one, the prediction.

    Args:
        sample: ``image`` (C, H, W) in physical units, ``mask`` (H, W), ``label`` () or ``target`` (C, H, W), optional
            ``prediction`` of the same shape, ``valid`` bool (H, W) and ``chip_id``; arrays or tensors.
        manifest: of the data set (bands, classes, statistics, name).
        bands: names of the sample's bands, in its order; default all of the manifest's image.
        suptitle: text beside the data set's name.
    """
    chip = chip_of(sample, manifest, bands)
    heading = f"{manifest.name} {manifest.version}" + (f" · {suptitle}" if suptitle else "")
    return _sheet([chip], manifest, heading, panel_inches=2.6)


def contact_sheet(
    folder: str | Path,
    split: str,
    out_png: str | Path,
    n: int = 12,
    seed: int = 0,
    ids: Sequence[str] | None = None,
) -> Path:
    """Write a PNG with chips of one split.

    Args:
        folder: the data set, ``<root>/<name>/<version>``.
        split: name of the split.
        out_png: the picture, replaced atomically.
        n: how many chips are drawn at random (all, when there are fewer), in order of the split; of patches, as many
            of every class as there are.
        seed: of the draw (PCG64).
        ids: these chips instead, in this order.

    Raises:
        InputError: n is not positive, or an id is not in the split.
    """
    if ids is None and n < 1:
        raise InputError(f"{n} chips cannot be drawn", hint="ask for 1 or more")
    manifest, shards = open_split(folder, split)
    places = [(shard, row) for shard in shards for row in range(shard.n)]
    total = len(places)
    if ids is None:
        places = [places[k] for k in _draw_chips(shards, manifest, n, seed)]
    else:
        known = {chip: (shard, row) for shard in shards for row, chip in enumerate(shard.chip_ids)}
        if missing := [chip for chip in ids if chip not in known]:
            raise InputError(f"no chip {missing[0]} in split {split}", where=folder)
        places = [known[chip] for chip in ids]
    image = next(a for a in manifest.arrays if a.role == "image")
    target, valid = manifest.label_array, next((a for a in manifest.arrays if a.role == "valid"), None)
    chips = []
    for shard, row in places:
        label = shard.read(target.name, row)
        sample = {
            "image": physical(shard.read(image.name, row), image.bands),
            target.role: physical(label, target.bands) if target.bands else label,
            "chip_id": shard.chip_ids[row],
        }
        if valid is not None:
            sample["valid"] = shard.read(valid.name, row) != 0
        chips.append(chip_of(sample, manifest))
    heading = f"{manifest.title} · {manifest.name} {manifest.version} · {split} · {len(chips)} of {total} chips"
    buffer = io.BytesIO()
    _sheet(chips, manifest, heading).savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(out_png, buffer.getvalue())
    return Path(out_png)


def _draw_chips(shards: Sequence[Shard], manifest: Manifest, n: int, seed: int) -> list[int]:
    order = np.random.Generator(np.random.PCG64(seed)).permutation(sum(shard.n for shard in shards))
    if manifest.task.kind == "classification" and order.size:
        name = manifest.label_array.name
        labels = np.concatenate([shard.read_many(name, range(shard.n)) for shard in shards])[order]
        turn = np.zeros(len(order), np.int64)  # each class's first draw, then each one's second, …
        for value in np.unique(labels):
            turn[labels == value] = np.arange((labels == value).sum())
        order = order[np.argsort(turn, kind="stable")]
    return sorted(order[:n].tolist())


def physical(stored: np.ndarray, bands: Sequence[Band]) -> np.ndarray:
    """float32 (C, H, W) in the bands' units, NaN where nodata."""
    values = stored.astype(np.float32)
    for b, band in enumerate(bands):
        values[b] = values[b] * band.scale + band.offset
        if band.nodata is not None:
            values[b][stored[b] == np.asarray(band.nodata).astype(stored.dtype)] = np.nan
    return values


def chip_of(sample: Mapping[str, Any], manifest: Manifest, bands: Sequence[str] | None = None) -> Chip:
    """The panels of one sample (see ``plot_sample``)."""
    array = next(a for a in manifest.arrays if a.role == "image")
    declared = {band.name: band for band in array.bands}
    names = list(declared) if bands is None else list(bands)
    image = np.array(sample["image"], np.float32)
    if len(image) != len(names):
        raise InputError(f"the sample has {len(image)} bands, {len(names)} are named: {', '.join(names)}")
    panels = _band_panels(_shown(image, sample), names, declared, manifest, array.name)
    caption, color, classes = "", "black", manifest.task.classes
    if "label" in sample:
        caption, color = _class_name(int(sample["label"]), manifest)
        if "prediction" in sample:
            caption = f"{caption}, predicted {_class_name(int(sample['prediction']), manifest)[0]}"
    for key in ("mask", "prediction"):
        if key in sample and "label" not in sample and classes:
            panels.append(Panel("label" if key == "mask" else key, class_colors(sample[key], manifest), is_input=False))
    if manifest.task.kind == "regression":
        target = manifest.label_array
        declared = {band.name: band for band in target.bands}
        for key in ("target", "prediction"):
            if key in sample:
                values = _shown(np.array(sample[key], np.float32), sample)
                panel = _band_panels(values, list(declared), declared, manifest, target.name)[0]
                panels.append(replace(panel, title=f"{key}: {panel.title}", is_input=False))
    return Chip(str(sample.get("chip_id", "")), panels, caption, color)


def _shown(values: np.ndarray, sample: Mapping[str, Any]) -> np.ndarray:
    """The bands (C, H, W), NaN where the sample is not valid, if ``valid`` lies on their grid."""
    valid = np.asarray(sample.get("valid", True), bool)
    if valid.shape == values.shape[1:]:
        values[:, ~valid] = np.nan
    return values


def _class_name(number: int, manifest: Manifest) -> tuple[str, str]:
    for c in manifest.task.classes:
        if c.id == number:
            return c.name, c.color
    return "ignored", IGNORED_COLOR


def class_colors(mask: Any, manifest: Manifest) -> np.ndarray:
    """float (H, W, 3): every pixel in its class's colour; what is no class in the colour of ignored pixels."""
    table = np.tile(to_rgb(IGNORED_COLOR), (256, 1))
    for c in manifest.task.classes:
        table[c.id] = to_rgb(c.color)
    return table[np.asarray(mask).astype(np.int64).clip(0, 255)]


def _band_panels(
    image: np.ndarray, names: list[str], declared: Mapping[str, Band], manifest: Manifest, array: str
) -> list[Panel]:
    scaled, notes = [], []
    for values, name in zip(image, names, strict=True):
        values, low, high, note = stretch(values, declared.get(name, Band(name=name)), manifest, array)
        scaled.append((values - low) / (high - low if high > low else 1))
        notes.append(note)
    lower = [name.lower() for name in names]
    if {"red", "green", "blue"} <= set(lower):
        rgb = np.stack([scaled[lower.index(c)] for c in ("red", "green", "blue")], axis=-1)
        note = "; ".join(f"{c}: {notes[lower.index(c)]}" for c in ("red", "green", "blue"))
        panels = [Panel("red, green, blue", _filled(rgb), note)]
        rest = [k for k, name in enumerate(lower) if name not in ("red", "green", "blue")]
    else:
        panels, rest = [], range(len(names))
    grey = [
        Panel(names[k], _filled(np.repeat(scaled[k][..., None], 3, axis=-1)), f"{names[k]}: {notes[k]}") for k in rest
    ]
    return (panels + grey)[:MAX_BAND_PANELS]


def stretch(
    values: np.ndarray, band: Band, manifest: Manifest, array: str = "image"
) -> tuple[np.ndarray, float, float, str]:
    """Values to show of a band of ``array``, their black and white level, and the stretch in words."""
    if band.unit.lower() in STRETCHED_UNITS:
        return values, 0.0, 255.0, "as stored (0 to 255)"
    known = next(
        (s for s in manifest.statistics if (s.array, s.band) == (array, band.name) and s.p02 is not None), None
    )
    finite = values[np.isfinite(values)]
    if known is not None:
        low, high, source = known.p02, known.p98, "of train"
    else:
        low, high = np.percentile(finite, [2, 98]) if finite.size else (0.0, 1.0)
        source = "of this chip"
    unit = "" if band.unit in ("", "1") else f" {band.unit}"
    if band.unit.lower() in LINEAR_UNITS:
        floor = max(float(low), 1e-6)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = 10 * np.log10(np.maximum(values, 1e-10))
        low, high, unit = 10 * np.log10(floor), 10 * np.log10(max(float(high), floor)), " dB"
    note = f"{low:.3g} to {high:.3g}{unit} (2–98 % {source})"
    return values, float(low), float(high), note.replace("-", "\N{MINUS SIGN}")


def _filled(rgb: np.ndarray) -> np.ndarray:
    missing = ~np.isfinite(rgb).all(axis=-1)
    rgb = np.clip(np.where(np.isfinite(rgb), rgb, 0), 0, 1).astype(np.float64)
    rgb[missing] = to_rgb(NO_DATA_COLOR)
    return rgb


def _sheet(chips: list[Chip], manifest: Manifest, heading: str, panel_inches: float = PANEL_INCHES) -> Figure:
    """All chips in rows of about nine panels, a heading above, legend and stretch below."""
    panels = max(len(chip.panels) for chip in chips)
    across = min(max(1, PANELS_PER_ROW // panels), len(chips))
    rows = -(-len(chips) // across)
    chip_width = panels * (panel_inches + GAP_INCHES) + 0.14
    margin = 0.2
    width = max(across * chip_width + 2 * margin, 6.0)
    heading = textwrap.wrap(heading, int(HEADING_CHARACTERS * (width - 2 * margin)))
    notes = textwrap.wrap(_notes(chips, manifest), int(NOTE_CHARACTERS * (width - 2 * margin)))
    head, foot = 0.35 + 0.2 * len(heading), 0.48 + 0.12 * len(notes)
    height = head + rows * (panel_inches + TITLE_INCHES) + foot
    figure = Figure((width, height), dpi=110, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        margin / width, 1 - 0.12 / height, "\n".join(heading),
        va="top", fontsize=11, fontweight="bold", parse_math=False,
    )  # fmt: skip
    for number, chip in enumerate(chips):
        row, column = divmod(number, across)
        top = height - head - row * (panel_inches + TITLE_INCHES)
        left = margin + column * chip_width
        text = figure.text(left / width, (top - 0.15) / height, chip.id, fontsize=8, parse_math=False)
        if chip.caption:
            text.set_text(f"{chip.id} · {chip.caption}")
        for k, panel in enumerate(chip.panels):
            x, y = left + k * (panel_inches + GAP_INCHES), top - TITLE_INCHES + 0.15 - panel_inches
            axes = figure.add_axes((x / width, y / height, panel_inches / width, panel_inches / height))
            _draw(axes, panel, chip, manifest.simulated)
    _legend(figure, chips, manifest, margin / width, (foot - 0.3) / height)
    figure.text(margin / width, 0.1 / height, "\n".join(notes), fontsize=7.5, color="#4a5560", parse_math=False)
    return figure


def _draw(axes: Axes, panel: Panel, chip: Chip, simulated: bool) -> None:
    axes.imshow(panel.rgb, interpolation="nearest", aspect="auto" if panel.rgb.shape[0] != panel.rgb.shape[1] else 1)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(chip.color if chip.caption else "#8a949c")
        spine.set_linewidth(2.5 if chip.caption else 0.6)
    box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5}
    axes.text(0.03, 0.97, panel.title, transform=axes.transAxes, va="top", fontsize=7, bbox=box, parse_math=False)
    if simulated and panel.is_input:
        axes.text(
            0.97, 0.03, "SIMULATED", transform=axes.transAxes, ha="right", va="bottom", fontsize=6.5,
            color=SIMULATED_COLOR, fontweight="bold", bbox=box,
        )  # fmt: skip


def _legend(figure: Figure, chips: list[Chip], manifest: Manifest, left: float, bottom: float) -> None:
    panels = [panel for chip in chips for panel in chip.panels]
    entries = [Patch(facecolor=c.color, edgecolor="#8a949c", label=c.name) for c in manifest.task.classes]
    for color, name, is_input in ((IGNORED_COLOR, "ignored", False), (NO_DATA_COLOR, "no data", True)):
        shown = (panel.rgb for panel in panels if panel.is_input == is_input)
        if any((rgb == to_rgb(color)).all(axis=-1).any() for rgb in shown):
            entries.append(Patch(facecolor=color, edgecolor="#8a949c", label=name))
    if entries:
        figure.legend(
            handles=entries, loc="lower left", bbox_to_anchor=(left, bottom), ncols=len(entries), fontsize=9,
            frameon=False, borderpad=0, borderaxespad=0, columnspacing=1.4, handlelength=1.2,
        )  # fmt: skip


def _notes(chips: list[Chip], manifest: Manifest) -> str:
    notes = list(dict.fromkeys(panel.stretch for panel in chips[0].panels if panel.stretch))
    return "; ".join(notes) + (". SIMULATED data, no observation." if manifest.simulated else "")
