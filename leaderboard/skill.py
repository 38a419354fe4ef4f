"""Skill: how much of the way from the best trivial row to perfection a model has gone, by task and for the suite.

The trivial rows' scores are frozen per data set version in ``trivial.json``, so that no later submission, and no later
trivial row, moves the figures of the others. Nothing is normalised over the submissions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from ..benchmark.records import HEADLINE, Kind, Result
from ..benchmark.rows import Row, rows
from ..datasets.files import write_atomic
from ..datasets.spec import Name, Sha256, SplitName, Strict, Version, canonical_json, describe_validation
from ..errors import FormatError
from .entries import BoardEntry

FROZEN_PATH = Path(__file__).with_name("trivial.json")
REFERENCE = {"harmonization": ("rmse", "bicubic")}  # metric and row of the zero; other tasks: the best headline
LEAKY_NAME = "-official"  # published splits that share ground with training, kept for comparison


class Frozen(Strict):
    """The zero of one table's skill. ``suite``: the table counts in the aggregate."""

    dataset: Name
    version: Version
    content_sha256: Sha256
    split: SplitName
    task: Kind
    metric: Annotated[str, Field(max_length=64)]
    model: Name
    label: Annotated[str, Field(max_length=100)]
    value: float
    suite: bool


class FrozenFile(Strict):
    """``trivial.json``."""

    format: Literal["tidemark-trivial"]
    schema_version: Literal["1.0"]
    tables: Annotated[tuple[Frozen, ...], Field(max_length=10_000)]


def load_frozen(path: str | Path = FROZEN_PATH) -> tuple[Frozen, ...]:
    """The frozen zeros. Raises FormatError with the JSON pointer of the first fault; no file, no zeros."""
    path = Path(path)
    if not path.exists():
        return ()
    try:
        return FrozenFile.model_validate(json.loads(path.read_bytes())).tables
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None


def is_trivial(entry: BoardEntry) -> bool:
    """A compulsory row of the protocol: one of the house's recipes that has no weights, or that learned nothing."""
    return entry.house and all(
        not r.model.trained or (r.model.weights_sha256 is None and r.config_hash is not None) for r in entry.results
    )


def zeros(entries: Iterable[BoardEntry]) -> list[Frozen]:
    """The best trivial row of every table on which skill is defined: the test split, or val where there is none."""
    by_table: dict[tuple[str, str], list[Row]] = {}
    for entry in filter(is_trivial, entries):
        split = scored_split(entry.results)
        for row in rows(entry.of_split(split)):
            by_table.setdefault((row.dataset.name, row.dataset.version), []).append(row)
    newest = {name: max((v for n, v in by_table if n == name), key=_version) for name, _ in by_table}
    found = [_zero(group, newest[name] == version) for (name, version), group in by_table.items()]
    return sorted(filter(None, found), key=lambda zero: (zero.dataset, _version(zero.version)))


def scored_split(results: Sequence[Result]) -> str:
    """``test``, or ``val`` for a data set that is published without one."""
    return "test" if any(r.dataset.split == "test" for r in results) else "val"


def _zero(group: Sequence[Row], newest: bool) -> Frozen | None:
    first = group[0]
    metric, model = REFERENCE.get(first.task, (HEADLINE[first.task], None))
    known = [
        (row.metrics[metric].mean, row)
        for row in group
        if (model is None or row.model.name == model) and metric in row.metrics and row.metrics[metric].mean is not None
    ]
    if not known:
        return None
    value, row = max(known, key=lambda pair: (pair[0], pair[1].key))
    return Frozen(
        dataset=first.dataset.name,
        version=first.dataset.version,
        content_sha256=first.dataset.content_sha256,
        split=first.dataset.split,
        task=first.task,
        metric=metric,
        model=row.model.name,
        label=row.model.label,
        value=value,
        suite=newest and not first.dataset.simulated and not first.dataset.name.endswith(LEAKY_NAME),
    )


def freeze(entries: Iterable[BoardEntry], path: str | Path = FROZEN_PATH, *, anew: bool = False) -> list[str]:
    """Add the zeros of tables that have none yet; what is frozen stays, unless ``anew``.

    Only ``suite`` of a frozen table changes: to false once its data set has a newer version.

    Returns:
        one line per table, for people.
    """
    kept = {} if anew else {(zero.dataset, zero.version): zero for zero in load_frozen(path)}
    tables = []
    for zero in zeros(entries):
        old = kept.pop((zero.dataset, zero.version), None)
        tables.append(zero if old is None else old.model_copy(update={"suite": zero.suite}))
    tables = sorted([*tables, *kept.values()], key=lambda zero: (zero.dataset, _version(zero.version)))
    file = FrozenFile(format="tidemark-trivial", schema_version="1.0", tables=tuple(tables))
    write_atomic(path, canonical_json(file))
    return [f"{z.dataset} {z.version} {z.split}: {z.metric} {z.value:.4f}, {z.label}" for z in tables]


def skill(row: Row, frozen: Iterable[Frozen]) -> float | None:
    """(s - s_trivial) / (1 - s_trivial) of a row's headline; of a harmonization 1 - RMSE / RMSE of bicubic.

    None where the row's table has no zero, the row has no score, or the trivial row is perfect.
    """
    key = (row.dataset.name, row.dataset.content_sha256, row.dataset.split)
    zero = next((z for z in frozen if (z.dataset, z.content_sha256, z.split) == key), None)
    cell = row.metrics.get(zero.metric) if zero is not None else None
    if cell is None or cell.mean is None:
        return None
    if row.task in REFERENCE:
        return 1 - cell.mean / zero.value if zero.value > 0 else None
    return (cell.mean - zero.value) / (1 - zero.value) if zero.value < 1 else None


def _version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
