"""Which DSWE date makes a pair with a SAR image, and why the others do not.

The rule and its thresholds are those that the builder applies (``datasets/dswe.py``). Here the codes come from windows
of the archive's files and the footprint from its catalogue, so that nothing large is fetched for a pair that fails.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..dswe import MAX_DAYS, footprint_shares, nearest_first, pair_fault

Tile = TypeVar("Tile")


@dataclass(frozen=True)
class Measured:
    """What DSWE of one date shows.

    Attributes:
        cloud: share of cloud among what its tiles saw.
        counts: int64 (256,), how often each code occurs in the SAR footprint; ground without a tile counts as fill.
    """

    cloud: float
    counts: np.ndarray

    @property
    def shares(self) -> tuple[float, float]:
        """Shares of the footprint that are valid, and water."""
        return footprint_shares(self.counts)


@dataclass(frozen=True)
class Choice:
    """The outcome for one SAR image.

    Attributes:
        date: of the DSWE that is taken, None where none will do.
        tiles: all its tiles, to be mosaicked in this order.
        measured: what they show; without a taken date, what the nearest one shows.
        faults: (date, why it will not do) of every date that was tried before.
    """

    date: datetime.date | None
    tiles: tuple
    measured: Measured | None
    faults: tuple[tuple[datetime.date, str], ...]

    @property
    def reason(self) -> str:
        """Why there is no pair; empty where there is one."""
        if self.date is not None:
            return ""
        if not self.faults:
            return f"no DSWE within {MAX_DAYS} day"
        return f"no DSWE within {MAX_DAYS} day will do: " + "; ".join(f"{d} {fault}" for d, fault in self.faults)


def choose(
    day: datetime.date,
    candidates: Mapping[datetime.date, Sequence[Tile]],
    measure: Callable[[Sequence[Tile]], Measured],
) -> Choice:
    """The nearest date whose tiles together will do; dates beyond the first that will do are not measured.

    Args:
        day: of the SAR image.
        candidates: date -> tiles that meet its footprint.
        measure: what the tiles of one date show.
    """
    faults, first = [], None
    for date in nearest_first(candidates, day):
        measured = measure(candidates[date])
        fault = pair_fault(measured.cloud, measured.counts)
        if fault is None:
            return Choice(date, tuple(candidates[date]), measured, tuple(faults))
        first = first or measured
        faults.append((date, fault))
    return Choice(None, (), first, tuple(faults))
