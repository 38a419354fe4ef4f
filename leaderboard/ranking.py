"""Who stands where: the newest active submission of each model and team, ranks by table, skill over the suite.

Tables by task come first. A claimed submission has no rank: nobody has recomputed it. The rank is that of
``benchmark.ranks`` (paired differences of the units, sign flips, Holm); below nine units there is none, and the order
is the headline's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from ..benchmark.ranks import Ranking
from ..benchmark.rows import Row, rows, told_apart
from ..benchmark.tables import ranking
from ..datasets.spec import canonical_json
from .entries import BoardEntry, plain_team
from .skill import Frozen, is_trivial, load_frozen, skill


@dataclass(frozen=True)
class BoardRow:
    """One entry in one table. ``order`` counts the rows that are not claimed from 1, by headline; claimed: None.

    ``row.key`` is unique on the board. ``rank`` is None for claimed rows and where models cannot be separated.
    """

    entry: BoardEntry
    row: Row
    trivial: bool
    order: int | None = None
    rank: int | None = None
    skill: float | None = None


@dataclass(frozen=True)
class BoardTable:
    """One split of one data set version: ``rows`` by headline, the claimed ones after all others.

    ``ranking`` holds the Holm-adjusted p values by pair of row keys; ``zero`` is the frozen trivial row, None where the
    split is not the one that skill is defined on.
    """

    dataset: str
    version: str
    split: str
    rows: tuple[BoardRow, ...]
    ranking: Ranking
    zero: Frozen | None


@dataclass(frozen=True)
class Standing:
    """One model of one team over the suite, or (``model`` None) a team with its best model on each data set.

    ``skills`` has the skill on each data set version of the suite, None where the model has no (verified) result;
    ``tasks`` the mean by task over the data sets it has; ``mean`` the mean over tasks, None unless no data set is
    missing: models are compared on the whole suite or not at all.
    """

    team: str
    model: str | None
    entries: tuple[BoardEntry, ...]
    skills: dict[str, float | None]
    tasks: dict[str, float | None]
    mean: float | None


def current(entries: Iterable[BoardEntry]) -> list[BoardEntry]:
    """Active entries; of several submissions by one team of one model on one data set version, the newest.

    A model is its name with its arguments. A claim never takes the place of a verified submission: of each kind the
    newest stands. The house's rows all stand.
    """
    newest: dict[tuple, BoardEntry] = {}
    for entry in entries:
        if entry.active:
            key = (entry.id,) if entry.house else _model_of(entry)
            if key not in newest or _time(newest[key]) < _time(entry):
                newest[key] = entry
    return list(newest.values())


def board_tables(entries: Iterable[BoardEntry], frozen: Sequence[Frozen] | None = None) -> list[BoardTable]:
    """Every data set version and split as a table with ranks and skill.

    Args:
        entries: from ``load_entries``; withdrawn and replaced ones are left out here.
        frozen: the zeros of skill; None: the committed ones.
    """
    zeros = load_frozen() if frozen is None else frozen
    groups: dict[tuple[str, str, str, str], list[BoardRow]] = {}
    for entry in current(entries):
        for row in _rows(entry):
            data = row.dataset
            key = (data.name, data.version, data.split, data.content_sha256)
            groups.setdefault(key, []).append(BoardRow(entry, row, is_trivial(entry), skill=skill(row, zeros)))
    return [_table(groups[key], zeros) for key in sorted(groups, key=lambda k: (k[0], _version(k[1]), k[2:]))]


def aggregate(entries: Iterable[BoardEntry], frozen: Sequence[Frozen] | None = None) -> list[Standing]:
    """`standings` of the tables of some entries."""
    return standings(board_tables(entries, frozen), frozen)


def standings(tables: Iterable[BoardTable], frozen: Sequence[Frozen] | None = None) -> list[Standing]:
    """Mean skill over the suite by team and model, the complete ones first, best first.

    A team with several models also has a standing of its own (few models can do every task). Where there is a choice,
    between configurations of a model or between models, the best validation score decides, never the test split.
    Weights that learned from another data set do not count.

    Args:
        tables: from ``board_tables``.
        frozen: as there.
    """
    zeros = [zero for zero in (load_frozen() if frozen is None else frozen) if zero.suite]
    own = [r for table in tables for r in table.rows if r.entry.ranked and r.row.trained_on is None]
    val = {id(r.entry): r.row.headline.mean for r in own if r.row.dataset.split == "val"}
    groups: dict[tuple[str, str | None], dict[str, BoardRow]] = {}
    for zero in zeros:
        for r in own:
            if (r.row.dataset.content_sha256, r.row.dataset.split) != (zero.content_sha256, zero.split):
                continue
            for model in (r.row.model.name, None):
                best = groups.setdefault((plain_team(r.entry.team), model), {})
                other = best.setdefault(f"{zero.dataset} {zero.version}", r)
                if _merit(other, val) < _merit(r, val):
                    best[f"{zero.dataset} {zero.version}"] = r
    models = Counter(team for team, model in groups if model is not None)
    found = [_standing(m, best, zeros) for (team, m), best in groups.items() if m is not None or models[team] > 1]
    return sorted(found, key=lambda s: (s.mean is None, -(s.mean or 0.0), s.model or "", s.team))


def _merit(row: BoardRow, val: dict[int, float | None]) -> tuple[float, str]:
    score = val.get(id(row.entry))
    return -math.inf if score is None else score, row.row.key


def _standing(model: str | None, best: dict[str, BoardRow], zeros: Sequence[Frozen]) -> Standing:
    entries = tuple(row.entry for row in best.values())
    skills: dict[str, float | None] = {}
    by_task: dict[str, list[float | None]] = {}
    for zero in zeros:
        name = f"{zero.dataset} {zero.version}"
        skills[name] = best[name].skill if name in best else None
        by_task.setdefault(zero.task, []).append(skills[name])
    tasks = {task: _mean([s for s in scores if s is not None]) for task, scores in by_task.items()}
    complete = None not in skills.values()
    return Standing(entries[0].team, model, entries, skills, tasks, _mean(list(tasks.values())) if complete else None)


def _table(group: list[BoardRow], zeros: Sequence[Frozen]) -> BoardTable:
    teams: dict[tuple[str, bool], list[BoardRow]] = {}
    for r in group:  # a stranger's recipe of the same name must not add its settings to one's own rows
        teams.setdefault((plain_team(r.entry.team), r.entry.ranked), []).append(r)
    named = (
        replace(r, row=row)
        for members in teams.values()
        for r, row in zip(members, told_apart([m.row for m in members]), strict=True)
    )
    ordered = sorted(
        named,
        key=lambda r: (
            not r.entry.ranked,
            r.row.headline.mean is None,
            -(r.row.headline.mean or 0),
            r.row.label,
            r.row.key,
        ),
    )
    verified = [r.row for r in ordered if r.entry.ranked]
    found = ranking(verified) if verified else Ranking(None, 0, {})
    placed = [
        replace(r, order=n, rank=found.ranks[r.row.key] if found.ranks else None) if n <= len(verified) else r
        for n, r in enumerate(ordered, 1)
    ]
    data = ordered[0].row.dataset
    zero = next((z for z in zeros if (z.content_sha256, z.split) == (data.content_sha256, data.split)), None)
    return BoardTable(data.name, data.version, data.split, tuple(placed), found, zero)


def _rows(entry: BoardEntry) -> list[Row]:
    """An entry's rows, one per split; two submissions of one configuration have keys of their own."""
    found = [
        row for split in dict.fromkeys(r.dataset.split for r in entry.results) for row in rows(entry.of_split(split))
    ]
    if entry.house:
        return found
    return [replace(row, key=sha256(f"{entry.id} {row.key}".encode()).hexdigest()) for row in found]


def _model_of(entry: BoardEntry) -> tuple:
    stated = entry.submission
    model = canonical_json({"name": stated.model.name, "arguments": stated.model.arguments})
    return plain_team(entry.team), stated.dataset.content_sha256, stated.dataset.version, model, entry.ranked


def _time(entry: BoardEntry) -> tuple[str, str]:
    return ("", entry.id) if entry.submission is None else (entry.submission.submitted, entry.id)


def _version(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
