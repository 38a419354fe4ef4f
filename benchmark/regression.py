"""Stored ratios of speed, by machine class, and when a new one is a gross loss.

A ratio is our rate over that of a yardstick measured in turns with it, so it says the same on a busy machine and on a
quiet one, and nearly the same on machines of one class.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..datasets.files import write_atomic
from ..errors import FormatError

GROSS_LOSS = 0.4
REPEATS = 3
Baselines = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Verdict:
    """The ratios that were measured, and whether every one of them was a gross loss against the baseline."""

    ratios: tuple[float, ...]
    baseline: float | None
    lost: bool

    def __str__(self) -> str:
        found = ", ".join(f"{ratio:.3g}" for ratio in self.ratios)
        return f"{found} of {self.baseline:.3g}" if self.baseline is not None else f"{found}, no baseline"


def judge(measure: Callable[[], float], baseline: float | None) -> Verdict:
    """Measure a ratio; where it is more than 40 % below the baseline, measure again, three times at most.

    One good measurement is enough: noise slows a contender down now and then, a regression does so every time.
    """
    ratios = [measure()]
    while baseline is not None and is_loss(ratios[-1], baseline):
        if len(ratios) == REPEATS:
            return Verdict(tuple(ratios), baseline, True)
        ratios.append(measure())
    return Verdict(tuple(ratios), baseline, False)


def is_loss(ratio: float, baseline: float) -> bool:
    """More than 40 % below the baseline."""
    return ratio < (1 - GROSS_LOSS) * baseline


def read_baselines(path: str | Path) -> Baselines:
    """Ratios by machine class and name. Raises FormatError where the file is not that."""
    path = Path(path)
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(machine): {str(name): float(ratio) for name, ratio in ratios.items()}
            for machine, ratios in found.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"not ratios by machine and name ({error})", where=path) from None


def baseline_for(baselines: Mapping[str, Mapping[str, float]], machine: str, name: str) -> float | None:
    """The machine class's own ratio, else the lowest of the other classes, else None (nothing to compare with)."""
    own = baselines.get(machine, {}).get(name)
    return min((ratios[name] for ratios in baselines.values() if name in ratios), default=None) if own is None else own


def store_baseline(path: str | Path, machine: str, name: str, measure: Callable[[], float]) -> float:
    """Measure three times and keep the lowest for this machine class; the other classes stay.

    The lowest, because a later run must not fail for what this machine does on a worse day.
    """
    baselines = read_baselines(path)
    ratio = float(f"{min(measure() for _ in range(REPEATS)):.3g}")
    baselines.setdefault(machine, {})[name] = ratio
    write_atomic(path, json.dumps(baselines, indent=1, sort_keys=True) + "\n")
    return ratio
