"""Ranks within one table: which models are significantly better than which, unit by unit.

Paired differences of the units' scores (scenes, events, blocks), sign flips, Holm over all pairs of the table. A
model's rank is 1 + the number of models that are significantly better, so models that cannot be told apart share one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .uncertainty import MIN_UNITS_RANK, holm, sign_flip_p_values

ALPHA = 0.05


@dataclass(frozen=True)
class Ranking:
    """Ranks of a table's models.

    ``ranks`` is None below 9 units: there even a model that wins every unit cannot be separated. ``units`` is the
    number of units in which at least two models have a score; ``p_values`` are Holm-adjusted, by pair of models.
    """

    ranks: dict[str, int] | None
    units: int
    p_values: dict[tuple[str, str], float]

    def separates(self, a: str, b: str) -> bool:
        """Whether the difference between two models is significant."""
        p = self.p_values.get((a, b), self.p_values.get((b, a), 1.0))
        return self.ranks is not None and p < ALPHA


def rank(scores: Mapping[str, ArrayLike], *, higher_is_better: bool = True) -> Ranking:
    """Rank the models of one table.

    Args:
        scores: by model, (U,) its score in every unit (the mean over its seeds), the same units in the same order for
            all; NaN where undefined. Such units are left out of that model's comparisons, and a pair with fewer than
            9 common units counts as not separable.
        higher_is_better: False for errors.

    Raises:
        InputError: the models have different numbers of units.
    """
    values = {model: np.asarray(score, np.float64) for model, score in scores.items()}
    lengths = {model: value.shape for model, value in values.items()}
    if len(set(lengths.values())) > 1 or any(len(shape) != 1 for shape in lengths.values()):
        raise InputError(f"ranks need one score a unit for every model, found {lengths}")
    known = np.sum([~np.isnan(value) for value in values.values()], axis=0) if values else np.zeros(0)
    units = int(np.count_nonzero(known >= min(2, len(values))))
    if units < MIN_UNITS_RANK:
        return Ranking(None, units, {})
    pairs = list(combinations(values, 2))
    differences = np.array([values[a] - values[b] for a, b in pairs]).reshape(len(pairs), len(known))
    p_values = np.ones(len(pairs))
    common = np.count_nonzero(~np.isnan(differences), axis=1)
    for count in set(common[common >= MIN_UNITS_RANK].tolist()):  # pairs with as many units share their flips
        alike = np.flatnonzero(common == count)
        p_values[alike] = sign_flip_p_values(np.array([d[~np.isnan(d)] for d in differences[alike]]))
    adjusted = dict(zip(pairs, holm(p_values).tolist(), strict=True))
    ranks = dict.fromkeys(values, 1)
    for (a, b), difference in zip(pairs, differences, strict=True):
        if adjusted[a, b] < ALPHA:
            a_wins = (np.nansum(difference) > 0) == higher_is_better
            ranks[b if a_wins else a] += 1
    return Ranking(ranks, units, adjusted)
