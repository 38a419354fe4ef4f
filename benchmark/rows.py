"""From result records to table rows: one configuration over its seeds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ..configs import parse_yaml
from ..datasets.spec import canonical_json
from ..errors import ConfigError, InputError
from ..models.runs import PLACE_KEYS
from . import metrics
from .records import HEADLINE, RESULT_NAME, ClassDef, DatasetRef, Interval, Kind, ModelRef, Result, Speed, read_result
from .scores import as_metric, counts_of, estimates

MAX_FILES = 100_000
MAX_SETTINGS = 4  # in a row's name
MAX_WORDS = 80  # characters of a setting, or of the data trained on: a stranger's recipe may hold anything
NO_RECORDS = frozenset({"submission.json", "verification.json", "withdrawn.json"})


@dataclass(frozen=True)
class Cell:
    """One figure of a row: mean over seeds (None where undefined), sd over seeds (None below two), 95 % interval."""

    mean: float | None
    sd: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True)
class UnitScores:
    """One unit of inference of a row: ``scores`` are means over the seeds (None where undefined)."""

    id: str
    pixels: int
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Row:
    """One configuration (data, split, model, arguments, recipe) over its seeds."""

    key: str  # sha256 of what makes the configuration
    task: Kind
    dataset: DatasetRef
    model: ModelRef  # of the first seed; each seed has its own weights
    classes: tuple[ClassDef, ...]
    names: tuple[str, ...]  # of the classes, or of a harmonization's bands
    seeds: tuple[int | None, ...]
    metrics: dict[str, Cell]
    units: tuple[UnitScores, ...]
    speed: Speed | None
    results: tuple[Result, ...]  # one per seed
    variant: str = ""  # what tells it from rows of the same name, see `told_apart`

    @property
    def headline(self) -> Cell:
        """The figure that the table is ordered by."""
        return self.metrics[HEADLINE[self.task]]

    @cached_property
    def trained_on(self) -> str | None:
        """``name version`` of the data that the weights learned from, where those are not the data scored."""
        try:
            data = parse_yaml(self.results[0].config or "{}", where=self.key)["DATA"]
            source = f"{data['NAME']} {data['VERSION']}"
        except (ConfigError, KeyError, TypeError):  # foreign predictions have no recipe of ours
            return None
        own = f"{self.dataset.name} {self.dataset.version}"
        return None if source == own or len(source) > MAX_WORDS else source

    @property
    def label(self) -> str:
        """The model's name in tables, with what it was trained on where that is another data set."""
        name = self.model.label + (f" (trained on {self.trained_on})" if self.trained_on else "")
        return f"{name}; {self.variant}" if self.variant else name


def collect(paths: Iterable[str | Path]) -> list[Result]:
    """All records among files and folders: every ``result.json`` below a folder, or all its ``.json`` when it has none.

    What lies beside records in a folder of submissions (``submission.json`` and its like) is passed over.

    Raises:
        FormatError: a file that is no record.
        InputError: a path that is not there.
    """
    results = []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError("no such file or folder", where=path)
        found = [path] if path.is_file() else sorted(path.rglob(RESULT_NAME))
        if not found:
            found = sorted(p for p in path.rglob("*.json") if p.name not in NO_RECORDS)
        if len(found) > MAX_FILES:
            raise InputError(f"{len(found)} records, over the limit of {MAX_FILES}", where=path)
        results += map(read_result, found)
    return results


def row_key(result: Result) -> str:
    """sha256 of what the seeds of one row share: data, split, model, arguments, recipe."""
    recipe = result.config_hash if result.config_hash is not None else result.model.label
    return hashlib.sha256(
        canonical_json(
            {
                "content_sha256": result.dataset.content_sha256,
                "split": result.dataset.split,
                "model": result.model.name,
                "arguments": result.model.arguments,
                "recipe": recipe,
            }
        )
    ).hexdigest()


def rows(results: Sequence[Result]) -> list[Row]:
    """Group records by configuration, best headline first within a data set, version and split.

    Raises:
        InputError: a seed occurs twice with different predictions, or the seeds were scored on different units.
    """
    groups: dict[str, dict[int | None, Result]] = {}
    for result in results:
        seeds = groups.setdefault(row_key(result), {})
        other = seeds.setdefault(result.seed, result)
        if other.predictions_sha256 != result.predictions_sha256:
            raise InputError(
                f"seed {result.seed} of {result.model.label} occurs twice with different predictions "
                f"(records {other.id[:16]} and {result.id[:16]})",
                where=result.dataset.name,
                hint="keep one of them",
            )
    found = [
        _row(key, [seeds[s] for s in sorted(seeds, key=lambda s: (s is None, s))]) for key, seeds in groups.items()
    ]
    return sorted(
        found,
        key=lambda row: (
            row.dataset.name,
            tuple(map(int, row.dataset.version.split("."))),
            row.dataset.split,
            row.headline.mean is None,
            -(row.headline.mean or 0),
            row.model.label,
            row.key,
        ),
    )


def told_apart(group: Sequence[Row]) -> list[Row]:
    """The rows of one table, those of one name with the settings in which their recipes differ from most of them."""
    named: dict[str, list[dict[str, str]]] = {}
    for row in group:
        named.setdefault(replace(row, variant="").label, []).append(_settings(row))
    return [_told_apart(row, named[replace(row, variant="").label]) for row in group]


def _told_apart(row: Row, settings: list[dict[str, str]]) -> Row:
    own, differing = _settings(row), []
    for key in sorted({key for one in settings for key in one}):
        counts = Counter(one.get(key) for one in settings).most_common(2)
        usual = len(counts) == 1 or counts[0][1] > counts[1][1]
        if not (usual and own.get(key) == counts[0][0]):
            words = f"{key.rpartition('.')[2].lower().replace('_', ' ')} {own.get(key, 'none')}"
            differing.append(words if len(words) <= MAX_WORDS else f"{words[: MAX_WORDS - 1]}…")
    shown = differing[:MAX_SETTINGS] + ["…"] * (len(differing) > MAX_SETTINGS)
    return replace(row, variant=", ".join(shown))


def _settings(row: Row) -> dict[str, str]:
    """The recipe's keys that can change what is computed, in words; none where there is no recipe of ours."""
    try:
        recipe = parse_yaml(row.results[0].config or "{}", where=row.key)
        keys = [(section, key) for section in ("DATA", "AUGMENT", "MODEL", "TRAIN") for key in recipe.get(section, {})]
        found = {f"{section}.{key}": recipe[section][key] for section, key in keys if (section, key) not in PLACE_KEYS}
        arguments = found.pop("MODEL.ARGS", {})
        found |= {f"MODEL.ARGS.{key}": value for key, value in arguments.items()}
        words = {k: ", ".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in found.items()}
        return {k: word or ("all" if k == "DATA.BANDS" else "none") for k, word in words.items()}
    except (ConfigError, AttributeError, TypeError):
        return {}


def _row(key: str, results: list[Result]) -> Row:
    first = results[0]
    found = estimates(first.task, first.names, counts_of(results))
    cells = {k: Cell(metrics.none(e.mean), _finite(e.sd), as_metric(e).interval) for k, e in found.items()}
    for extra in sorted(first.metrics.keys() - found.keys()):
        values = np.array(
            [np.nan if (m := r.metrics.get(extra)) is None or m.value is None else m.value for r in results]
        )
        cells[extra] = Cell(metrics.none(values.mean()), _finite(values.std(ddof=1)) if len(values) > 1 else None)
    by_seed = [{u.id: u for u in r.units} for r in results]
    units = tuple(
        UnitScores(u.id, u.pixels, {k: _mean([units[u.id].scores.get(k) for units in by_seed]) for k in u.scores})
        for u in first.units
    )
    return Row(
        key=key,
        task=first.task,
        dataset=first.dataset,
        model=first.model,
        classes=first.classes,
        names=first.names,
        seeds=tuple(r.seed for r in results),
        metrics=cells,
        units=units,
        speed=next((r.speed for r in results if r.speed is not None), None),
        results=tuple(results),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None else metrics.none(value)


def _mean(values: list[float | None]) -> float | None:
    return None if None in values else float(np.mean(values))
