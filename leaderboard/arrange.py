"""From board entries to the page's sections: grouped by task and data set version, ordered, ranked, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..benchmark.published import published_for
from ..benchmark.records import HEADLINE, Speed
from ..benchmark.tables import Cell, Column, Row, columns, seeds_in_words
from ..benchmark.uncertainty import MIN_UNITS as MIN_UNITS_FOR_INTERVAL
from . import charts
from .networks import Network, matched
from .ranking import BoardRow, BoardTable
from .view import TASKS, Entry, Section, Table, Throughput, is_leaky, may_show_maps

LEAST_SPAN = {"psnr": 1.0}  # dB; an axis is never so narrow that noise looks like a difference
MAX_UNITS_SHOWN = 60  # per row of evidence; the JSON file holds them all
SPLIT_ORDER = ("test", "val", "train")
CHOSEN_ON = frozenset({"val", "train"})  # models are chosen on them: no ranks there, where there is a test split


def sections(found: Iterable[BoardTable], networks: Sequence[Network] = ()) -> list[Section]:
    """One section per data set name and version, by task; simulated and leaky ones last, versions newest first.

    Args:
        found: tables of the board.
        networks: what the networks alone cost, for plots beside those end to end.
    """
    groups: dict[tuple[str, str], list[BoardTable]] = {}
    for table in found:
        groups.setdefault((table.dataset, table.version), []).append(table)
    return sorted((_section(*key, members, networks) for key, members in groups.items()), key=_place)


def by_task(found: Sequence[Section]) -> list[tuple[str, list[Section]]]:
    """Sections grouped by their task, in the page's order."""
    return [(task, members) for task in TASKS if (members := [s for s in found if s.task == task])]


def _place(section: Section) -> tuple:
    version = [-int(part) for part in section.version.split(".")]
    return list(TASKS).index(section.task), section.simulated, section.leaky, section.name, version


def _section(name: str, version: str, members: Sequence[BoardTable], networks: Sequence[Network]) -> Section:
    anchor = f"{name}-{version}"
    ordered = sorted(members, key=lambda t: (SPLIT_ORDER.index(t.split) if t.split in SPLIT_ORDER else 0.5, t.split))
    val = {(r.entry.id, r.row.seeds): r.row.headline for t in ordered[1:] if t.split == "val" for r in t.rows}
    tables = []
    for number, table in enumerate(ordered):
        chosen_on = number > 0 and table.split in CHOSEN_ON
        tables.append(_table(anchor, table, {} if chosen_on else val, networks, ranked=not chosen_on))
    placed = [r.row for table in ordered for r in table.rows]
    return Section(
        anchor,
        name,
        version,
        placed[0].dataset.title,
        placed[0].task,
        any(r.dataset.simulated for r in placed),
        placed[0].dataset.licence,
        all(may_show_maps(r.dataset.simulated, r.dataset.licence) for r in placed),
        any(t.leaky for t in tables if t.split not in CHOSEN_ON),
        tuple(tables),
    )


def _table(
    section: str, table: BoardTable, val: Mapping[tuple, Cell], networks: Sequence[Network], *, ranked: bool
) -> Table:
    anchor, placed = f"{section}-{table.split}", table.rows
    first = placed[0].row
    found = columns(first.task, first.names)
    head = next(c for c in found if c.key == HEADLINE[first.task])
    present = {key for r in placed for key, cell in r.row.metrics.items() if cell.mean is not None}
    present -= {"abstained"} if not any(_mean(r.row, "abstained") for r in placed) else set()
    by_class = {"segmentation": "iou:", "classification": "f1:"}.get(first.task, "\0")
    absent = tuple(c.key.partition(":")[2] for c in found if c.key.startswith(by_class) and c.key not in present)
    listed = [head, *(c for c in found if c.key in present and c.key != head.key)]
    if table.zero is not None and table.zero.metric == head.key:
        floor, floor_label = table.zero.value, table.zero.label
    else:
        trivial = (r.row for r in placed if r.trivial and r.row.headline.mean is not None)
        floor, floor_label = next(((row.headline.mean, row.label) for row in trivial), (None, ""))
    drawn = [v for r in placed for v in _drawn(r.row, head.key)] + ([] if floor is None else [floor])
    axis = charts.strip_axis(drawn, LEAST_SPAN.get(head.key))

    def entry(order: int, r: BoardRow) -> Entry:
        name = f"{anchor}-{r.row.model.name}-{r.row.key[:8]}"
        own_val = val.get((r.entry.id, r.row.seeds))
        return _entry(name, r, order, r.rank if ranked else None, head, axis, floor, own_val)

    entries = tuple(entry(i, r) for i, r in enumerate((r for r in placed if r.entry.ranked), 1))
    claimed = tuple(entry(i, r) for i, r in enumerate((r for r in placed if not r.entry.ranked), 1))
    paretos = _paretos([e for e in entries if e.row.headline.mean is not None], networks, head)
    return Table(
        anchor,
        table.split,
        any(is_leaky(r.row) for r in placed if r.entry.house),
        first.task,
        tuple(listed),
        axis,
        floor,
        floor_label,
        tuple(dict.fromkeys(u.id for r in placed for u in r.row.units)),
        entries,
        claimed,
        any(e.val is not None for e in entries + claimed),
        paretos,
        tuple(sorted({e.device for e in entries + claimed if e.speed})),
        published_for(table.dataset, table.version, table.split),
        any(r.skill is not None for r in placed),
        absent,
    )


def _paretos(entries: Sequence[Entry], networks: Sequence[Network], head: Column) -> tuple[Throughput, ...]:
    """End to end by device class, then the networks alone, each where there are two models and more."""
    classes: dict[str, list[Entry]] = {}
    for e in entries:
        if e.speed:
            classes.setdefault(e.device_class, []).append(e)
    plots = [
        ("end to end", device, [_point(e, e.speed.chips_per_s, _rate(e.speed), head.decimals) for e in members])
        for device, members in sorted(classes.items())
        if len(members) > 1
    ]
    for place, pairs in matched(networks, [e.row.model for e in entries]):
        points = [_point(entries[i], n.ratio, f"{n.ratio:.2f} × the reference U-Net", head.decimals) for i, n in pairs]
        plots.append(("network alone", place, points))
    lower = head.better == "lower"
    return tuple(Throughput(what, device, charts.pareto(points, lower=lower)) for what, device, points in plots)


def _sign(column: Column) -> int:
    return -1 if column.better == "lower" else 1


def _mean(row: Row, key: str) -> float | None:
    return row.metrics[key].mean if key in row.metrics else None


def _drawn(row: Row, head: str) -> Iterable[float]:
    interval = row.headline.interval
    values = [row.headline.mean, *((interval.low, interval.high) if interval else ())]
    if len(row.units) < MIN_UNITS_FOR_INTERVAL:
        values += [u.scores.get(head) for u in row.units]
    return [v for v in values if v is not None]


def _entry(
    anchor: str,
    placed: BoardRow,
    order: int,
    rank: int | None,
    head: Column,
    axis: charts.Axis,
    floor: float | None,
    val: Cell | None,
) -> Entry:
    row = placed.row
    interval = row.headline.interval
    scored = [(u.scores[head.key], u) for u in row.units if u.scores.get(head.key) is not None]
    few = len(row.units) < MIN_UNITS_FOR_INTERVAL
    dots = [(v, f"{u.id}: {v:.{head.decimals}f}") for v, u in scored] if few else []
    worst = [u for _, u in sorted(scored, key=lambda item: (item[0] * _sign(head), item[1].id))]
    worst += [u for u in row.units if u.scores.get(head.key) is None]
    packages = [dict(r.packages) for r in row.results]
    return Entry(
        anchor,
        placed,
        order,
        rank,
        charts.strip(axis, row.headline.mean, (interval.low, interval.high) if interval else None, dots, floor),
        val,
        _seeds(row.seeds),
        tuple(dict.fromkeys(r.note for r in row.results if r.note)),
        tuple(worst[:MAX_UNITS_SHOWN]),
        packages[0],
        any(p != packages[0] for p in packages),
    )


def _rate(speed: Speed) -> str:
    return f"{speed.chips_per_s:,.0f} chips/s ({speed.precision}, batch {speed.batch})"


def _point(entry: Entry, speed: float, words: str, decimals: int) -> charts.Point:
    row, interval = entry.row, entry.row.headline.interval
    score = f"{row.headline.mean:.{decimals}f}"
    if interval:
        score += f" [{interval.low:.{decimals}f}, {interval.high:.{decimals}f}]"
    return charts.Point(
        row.label,
        entry.anchor,
        f"{row.label}: {score}, {words}",
        speed,
        row.headline.mean,
        (interval.low, interval.high) if interval else None,
        entry.trivial,
    )


def _seeds(seeds: Sequence[int | None]) -> str:
    known = [s for s in seeds if s is not None]
    return f"seed{'s' if len(known) > 1 else ''} {seeds_in_words(seeds)}" if known else "no seed"
