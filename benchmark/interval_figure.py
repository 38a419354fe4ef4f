"""The figure of ``tidemark uncertainty``: reliability curves, and error against sigma."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.files import write_atomic
from .interval_record import UncertaintyRecord, label
from .intervals import gaussian_factors

if TYPE_CHECKING:
    from matplotlib.axes import Axes


COLORS = ("#1f6fb4", "#b3541e", "#2b8a57", "#7b4fa3", "#555555", "#b59b00")
SIZE_INCHES, DPI = (9.6, 4.6), 110


def draw(records: Sequence[UncertaintyRecord], path: str | Path) -> None:
    """Write a PNG of one measurement, or of several side by side.

    Left: share of the truth inside the interval against its level, mean over bands, before calibration (dashed,
    Gaussian factors) and after (solid, the range over bands shaded). Right: rms error against rms sigma after
    calibration, a line per band; on the diagonal sigma is the error.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for record, color in zip(records, COLORS * (1 + len(records) // len(COLORS)), strict=False):
        _reliability(left, record, color)
        _error(right, record, color)
    left.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    left.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the interval", ylabel="share of the truth inside it")
    left.legend(loc="upper left", fontsize=8, frameon=False)
    ends = np.array([right.get_xlim(), right.get_ylim()])
    ends = [max(ends.min(), 1e-4), ends.max()]
    right.plot(ends, ends, color="black", linewidth=0.8)
    right.set(
        xscale="log",
        yscale="log",
        xlabel="sigma after calibration (rms, reflectance)",
        ylabel="error (rms, reflectance)",
    )
    right.legend(loc="upper left", fontsize=8, frameon=False)
    first = records[0]
    simulated = " — simulated data" if first.dataset.simulated else ""
    figure.suptitle(
        f"{first.dataset.name} {first.dataset.version}, {first.split} (calibrated on {first.calibrated_on}){simulated}",
        fontsize=10,
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomic(path, buffer.getvalue())


def _reliability(axes: Axes, record: UncertaintyRecord, color: str) -> None:
    before, after = np.array(record.before.coverage), np.array(record.after.coverage)
    levels = [0, *record.levels]
    axes.plot(levels, [0, *before.mean(0)], "--", color=color, linewidth=1)
    axes.fill_between(levels, [0, *after.min(0)], [0, *after.max(0)], color=color, alpha=0.2, linewidth=0)
    axes.plot(levels, [0, *after.mean(0)], color=color, linewidth=1.4, label=f"{label(record)}, after")
    axes.plot([], [], "--", color=color, linewidth=1, label=f"{label(record)}, before")


def _error(axes: Axes, record: UncertaintyRecord, color: str) -> None:
    # Sigma is scaled to cover 68 %, the Gaussian's 0.994 standard deviations.
    half = gaussian_factors([0.68])[0]
    for number, (name, pairs) in enumerate(zip(record.bands, record.error_by_sigma, strict=True)):
        if pairs:
            sigma, error = np.array(pairs).T
            axes.plot(
                sigma / half, error, ".-", color=color, linewidth=1, markersize=4, alpha=0.35 + 0.1 * number,
                label=label(record) if number == len(record.bands) - 1 else None, gid=name,
            )  # fmt: skip
