"""``uncertainty.json``: what ``tidemark uncertainty`` found, its reading, and its line in a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from ..datasets.spec import Name, Sha256, SplitName, Strict, describe_validation
from ..errors import FormatError

RECORD_NAME = "uncertainty.json"
MAX_RECORD_BYTES = 16 << 20
SHOWN = (0.68, 0.95)
Interval = tuple[float, float | None, float | None]


class DatasetReference(Strict):
    """Which data, and whether no satellite measured them."""

    name: Name
    version: str
    content_sha256: Sha256
    simulated: bool


class State(Strict):
    """Before or after calibration: ``coverage`` by band and level; ``pooled`` over bands at 0.68 and 0.95, each with
    its 95 % interval over scenes (null below 6); ``sharpness``, the mean half width at 0.68 and 0.95 by band."""

    coverage: list[list[float]]
    pooled: dict[str, Interval]
    sharpness: dict[str, list[float]]


class Crossed(Strict):
    """Coverage by band and level, and pooled, of the ``scenes`` of both splits, each calibrated on all the others.

    What is off in a whole scene (haze, calibration) makes its coverage high or low as a whole, so that two splits of
    some twenty scenes differ by chance; this uses every scene for both ends and shows what a new scene may expect.
    """

    scenes: int
    coverage: list[list[float]]
    pooled: dict[str, Interval]


class UncertaintyRecord(Strict):
    """``uncertainty.json``.

    ``factors`` (bands × levels) multiply sigma as the method gives it. ``correlation`` is Pearson's r of sigma and
    |error|, ``rmse`` that of the mean, both by band; ``error_by_sigma`` by band pairs of rms sigma (scaled to 68 %) and
    rms error; ``scenes`` the pooled coverage after calibration at 0.68 and 0.95 of each scene.
    """

    format: Literal["tidemark-uncertainty"] = "tidemark-uncertainty"
    format_version: Literal["1.0"] = "1.0"
    dataset: DatasetReference
    calibrated_on: SplitName
    split: SplitName
    method: Literal["gaussian", "mc-dropout", "ensemble"]
    passes: int
    models: list[str]
    members: list[Sha256]
    bands: list[str]
    levels: list[float]
    factors: list[list[float]]
    before: State
    after: State
    crossed: Crossed
    psnr_db: float
    rmse: list[float]
    correlation: list[float | None]
    error_by_sigma: list[list[tuple[float, float]]]
    scenes: dict[str, tuple[float, float]]
    provenance: dict[str, Any]


def read_record(path: str | Path) -> UncertaintyRecord:
    """Read ``uncertainty.json`` (or of a folder the one in it). Raises FormatError with what is wrong."""
    path = Path(path) / RECORD_NAME if Path(path).is_dir() else Path(path)
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise FormatError(f"{path.stat().st_size} bytes, over the limit of {MAX_RECORD_BYTES}", where=path)
        return UncertaintyRecord.model_validate(json.loads(path.read_bytes()))
    except OSError:
        raise FormatError("no uncertainty here", where=path, hint="`tidemark uncertainty RUN` writes one") from None
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None


def uncertainty_table(records: Sequence[UncertaintyRecord]) -> Any:
    """A column per measurement for the console: PSNR of the mean, coverage before and after, half width, r."""
    from rich.table import Table

    table = Table("", *map(label, records))
    table.add_row("PSNR of the mean, dB", *(f"{one.psnr_db:.2f}" for one in records))
    for level in SHOWN:
        for when in ("before", "after"):
            cells = (_percent(getattr(one, when).pooled[f"{level:g}"]) for one in records)
            table.add_row(f"inside the {level:.0%} interval, {when}", *cells)
        table.add_row(f"farthest band at {level:.0%}, after", *(_farthest(one, level) for one in records))
        crossed = (_percent(one.crossed.pooled[f"{level:g}"]) for one in records)
        table.add_row(f"inside at {level:.0%}, each scene calibrated on all others", *crossed)
    table.add_row("mean half width at 68%, after", *(f"{np.mean(one.after.sharpness['0.68']):.4f}" for one in records))
    table.add_row("r of sigma and |error|", *(_mean([r for r in one.correlation if r is not None]) for one in records))
    return table


def _farthest(record: UncertaintyRecord, level: float) -> str:
    shares = [of_band[record.levels.index(level)] for of_band in record.after.coverage]
    place = max(range(len(shares)), key=lambda i: abs(shares[i] - level))
    return f"{record.bands[place]} {100 * shares[place]:.1f}"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f}" if values else "–"


def _percent(found: Interval) -> str:
    share, low, high = found
    return f"{100 * share:.1f}" + ("" if low is None else f" \\[{100 * low:.1f}, {100 * high:.1f}]")


def label(record: UncertaintyRecord) -> str:
    """Name of a measurement in the figure and in tables."""
    network = ", ".join(dict.fromkeys(record.models))
    how = {
        "gaussian": "Gaussian head",
        "mc-dropout": f"dropout, {record.passes} passes",
        "ensemble": f"ensemble of {len(record.members)}",
    }[record.method]
    return f"{network}: {how}"
