"""The command ``series``: class maps of ``predict`` with the errors that a record or a sample knows of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..models.series import Series, series
from ..models.series_area import MIN_SCENES, ErrorRates, error_rates
from ..models.series_maps import WATER, read_sample
from .records import read_result


def series_command(maps: list[Path], out: Path, errors: Path | None, class_name: str | None, **options: Any) -> Series:
    """``series`` with ``errors`` read from a record (``result.json``) or a CSV of sample points.

    Raises:
        InputError: the errors say nothing about the class; and as ``series``.
    """
    known = None if errors is None else read_errors(errors, class_name)
    if isinstance(known, ErrorRates) and known.scenes < MIN_SCENES:
        print(f"{known.scenes} scenes behind the error rates, below {MIN_SCENES}: areas without intervals")
    return series(maps, out, class_name=class_name, errors=known, **options)


def read_errors(path: Path, class_name: str | None) -> ErrorRates | np.ndarray:
    """Rates from a record's scenes, or a sample's integers (2, 2) from a CSV."""
    if path.suffix.lower() == ".csv":
        return read_sample(path)
    result = read_result(path)
    names = [c.name for c in result.classes]
    number = int(class_name) if (class_name or "").isdecimal() else None
    if number is None and (class_name or WATER) in names:
        number = names.index(class_name or WATER)
    if number is None or number >= len(names):
        raise InputError(f"no class {class_name or WATER!r}, the record has {', '.join(names) or 'none'}", where=path)
    try:
        return error_rates([unit.confusion for unit in result.units], number)
    except ValueError as error:
        raise InputError(f"no error rates ({error})", where=path) from None
