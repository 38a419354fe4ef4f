"""Make a published table again by one command: train, predict, score, compare.

A table is ``configs/tables/<name>.yaml``. Every run is a child process, so a crash costs one run; a run whose verified
result lies there is not repeated, so an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..configs import parse_yaml
from ..datasets.files import write_atomic
from ..errors import FormatError, InputError, PartialResultError, TidemarkError
from ..models.runs import config_hash, usable_cores
from .executors import dask_executor, make_slots, part_of, run_all
from .published import Published, load_published
from .records import Result, write_result
from .render import html, latex, markdown, replace_between_markers
from .runner import Cost, Request, read_cost, verified_result
from .sweep import PACKAGE, Job, TableSpec, Target, load_table, plan
from .tables import Row, Table, collect, number, row_key, rows
from .tables import table as table_of

RECORDS = Path("leaderboard/submissions")


@dataclass(frozen=True)
class Reproduced:
    """What came out: the tables with their marks, one record per run and split, and what the runs cost in all."""

    tables: tuple[Table, ...]
    results: tuple[Result, ...]
    cost: Cost = Cost()


@dataclass(frozen=True)
class Where:
    """Where the runs go: ``workers`` side by side, one to each of ``gpus``, or to a ``dask`` scheduler.

    ``shard`` i/n takes every n-th run from the i-th and makes no table. Throughput is measured only where one run at a
    time has the machine.
    """

    workers: int = 1
    gpus: tuple[str, ...] = ()
    dask: str | None = None
    shard: str | None = None

    @property
    def alone(self) -> bool:
        """Whether a run has its machine to itself, so that its throughput can be measured."""
        return self.dask is None and self.workers == 1 and len(self.gpus) < 2

    def __post_init__(self) -> None:
        if self.gpus and (self.dask or self.workers > 1):
            raise InputError("--gpus takes one run to a GPU of this machine", hint="without --workers and --dask")


def reproduce(
    table: str | Path,
    profile: str = "cpu",
    data_root: str | Path = "data",
    out: str | Path = "runs",
    *,
    records: str | Path | None = None,
    check: bool = False,
    readme: str | Path | None = None,
    where: Where = Where(),
    say: Callable[[str], None] = print,
) -> Reproduced:
    """Run what is missing of a table, write it as Markdown, LaTeX and HTML, and publish or compare its records.

    Args:
        table: name or path of the table.
        profile: ``cpu`` or ``full``.
        data_root: folder of all data sets.
        out: folder of all runs; the tables go to ``<out>/tables``, logs and costs to ``<out>/logs``.
        records: folder that takes a copy of each record as soon as it is there, usually ``leaderboard/submissions``
            of a checkout; None: nothing is published.
        check: publish nothing, compare with the records under ``records`` (None: those that come with the package).
        readme: a Markdown file whose markers ``<!-- table:NAME -->`` take the table.
        where: which machines and how many runs at a time.
        say: takes one line per run.

    Raises:
        PartialResultError: some runs failed; the others are done, scored and kept.
        TidemarkError: ``check`` found figures that differ.
        InputError: options that contradict each other.
    """
    start, name = time.monotonic(), Path(table).stem
    spec = load_table(table)
    published = _published(spec)
    jobs = plan(spec, profile, data_root, out)
    if where.shard is not None:
        if check or readme is not None:
            raise InputError("a part of a sweep makes no table to check or write", hint="call again without --shard")
        jobs = part_of(where.shard, jobs)
    if readme is not None:
        replace_between_markers(Path(readme).read_text(encoding="utf-8"), name, "")  # fails now, not after the runs

    made: dict[str, list[Result]] = {}
    failed: dict[str, str] = {}
    spent = Cost()

    def finish(job: Job, results: list[Result], what: str) -> None:
        made[job.run_id] = results
        if records is not None and not check:
            for result in results:
                write_result(record_path(records, job, result), result)
        scored = zip(job.targets, results, strict=True)
        figures = ", ".join(f"{_name(target)} {number(result.headline.value)}" for target, result in scored)
        say(f"[{len(made) + len(failed)}/{len(jobs)}] {job}: {figures} ({what})")

    missing, timed = [], {_configuration(job): job.run_id for job in reversed(jobs)}  # a row's first seed is timed
    for job in jobs:
        try:
            results = [verified_result(job, target) for target in job.targets]
        except FormatError:
            speed = spec.speed and where.alone and timed[_configuration(job)] == job.run_id
            missing.append(Request(job, Path(out) / "logs" / f"{job.run_id}.log", speed))
        else:
            finish(job, results, f"was there; made in {read_cost(Path(out) / 'logs' / f'{job.run_id}.log')}")
    for request, outcome in _run(missing, where):
        job, error = request.job, outcome.error
        spent += outcome.cost
        if error is None:
            try:
                finish(job, [verified_result(job, target) for target in job.targets], str(outcome.cost))
            except FormatError as unsound:
                error = str(unsound)
        if error is not None:
            failed[job.run_id] = f"{job}: {error}"
            say(f"[{len(made) + len(failed)}/{len(jobs)}] {job}: failed after {outcome.cost}: {error}")

    total = sum((read_cost(Path(out) / "logs" / f"{job.run_id}.log") for job in jobs), Cost())
    budget = spec.profiles[profile].budget_min
    within = f" ({total.wall_s / 60:.1f} of the profile's {budget:g} minutes)" if budget else ""
    say(
        f"{len(jobs)} runs one after the other: {total}{within}. This call: {len(missing)} runs, "
        f"{time.monotonic() - start:.1f} s, {spent.cpu_s:.1f} CPU s on {usable_cores()} cores."
    )
    results = [result for job in jobs for result in made.get(job.run_id, ())]
    found = rows(results)
    written = [] if where.shard else _tables(spec, found, published)
    if written:
        _write(written, name, profile, Path(out) / "tables", readme if not failed else None)
    if failed:
        raise PartialResultError(
            f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed.values())}",
            where=name,
            hint="give the same command again, finished runs are kept",
        )
    if check and (faults := differences(found, _committed(records or PACKAGE / RECORDS, found), spec.tolerance)):
        raise TidemarkError(f"{len(faults)} figures differ from the committed ones: {'; '.join(faults)}", where=name)
    return Reproduced(tuple(written), tuple(results), total)


def record_path(records: str | Path, job: Job, result: Result) -> Path:
    """``<records>/<dataset>/v<major>/<model>/<run id>/<split>.json``."""
    data = result.dataset
    major = data.version.partition(".")[0]
    return Path(records) / data.name / f"v{major}" / result.model.name / job.run_id / f"{data.split}.json"


def differences(found: Sequence[Row], committed: Sequence[Row], tolerance: float) -> list[str]:
    """Headlines outside the committed interval, or, where that has none, further off than the tolerance.

    Simulated data may differ in their last bits between processors, so there a row of the same data set, version,
    model and arguments counts as the committed one whatever the content's digest.
    """
    known, alike, faults = {row.key: row for row in committed}, {_loosely(row): row for row in committed}, []
    for row in found:
        name = f"{row.label} on {row.dataset.name} {row.dataset.version} {row.dataset.split}"
        mine = known.get(row.key) or (alike.get(_loosely(row)) if row.dataset.simulated else None)
        if mine is None:
            faults.append(f"{name}: no committed figure")
            continue
        new, old = row.headline.mean, mine.headline
        if new is None or old.mean is None:
            inside, allowed = new is old.mean, number(old.mean)
        elif old.interval is not None:
            inside = old.interval.low <= new <= old.interval.high
            allowed = f"[{old.interval.low:.4f}, {old.interval.high:.4f}]"
        else:
            inside, allowed = abs(new - old.mean) <= tolerance, f"{old.mean:.4f} ± {tolerance}"
        if not inside:
            faults.append(f"{name}: {number(new, 4)}, expected {allowed}")
    return faults


def _run(requests: list[Request], where: Where) -> Iterator:
    if not requests:
        return iter(())
    if where.dask is None:
        return run_all(requests, make_slots(where.workers, where.gpus))
    threads = max(1, usable_cores() // where.workers) if where.dask == "local" else 0
    return _on_dask([replace(request, threads=threads) for request in requests], where)


def _on_dask(requests: list[Request], where: Where) -> Iterator:
    with dask_executor(where.dask, where.workers) as executor:
        yield from run_all(requests, executor=executor)


def _configuration(job: Job) -> str:
    """What the seeds of one row share of a run's id."""
    return job.run_id.rpartition("-seed")[0]


def _name(target: Target) -> str:
    """A split's name in a line about a run, with the data set where that is not the run's own."""
    return target.split if target.folder is None else f"{target.dataset} {target.version} {target.split}"


def _loosely(row: Row | Result) -> tuple:
    """What two rows share that differ in the bits of their data at most."""
    result = row.results[0] if isinstance(row, Row) else row
    data, recipe = result.dataset, result.model.label
    if result.config:
        recipe = config_hash(parse_yaml(result.config, where=result.id[:16]), "")
    return data.name, data.version, data.split, result.model.name, recipe


def _published(spec: TableSpec) -> dict[tuple[str, str, str], Published]:
    """By data set, version and split; read before any run, so that a fault in a file costs nothing."""
    return {
        (part.dataset, part.version, split): load_published(name)
        for part in spec.parts
        for split, name in part.published.items()
    }


def _tables(spec: TableSpec, found: Sequence[Row], published: dict[tuple[str, str, str], Published]) -> list[Table]:
    """A table for each data set, version and split: the parts' own in their order, then those scored elsewhere."""
    groups: dict[tuple[str, str, str], list[Row]] = {
        (part.dataset, part.version, split): [] for part in spec.parts for split in part.splits
    }
    for row in found:
        groups.setdefault((row.dataset.name, row.dataset.version, row.dataset.split), []).append(row)
    marks = {(part.dataset, part.version): part.mark for part in spec.parts}
    written = []
    for key, group in groups.items():
        if group:
            made, mark = table_of(group, published.get(key)), marks.get(key[:2])
            written.append(replace(made, title=f"{made.title}: {mark}") if mark else made)
    return written


def _write(written: Sequence[Table], name: str, profile: str, folder: Path, readme: str | Path | None) -> None:
    text = "\n".join(map(markdown, written)) + f"\nMade by `tidemark reproduce {name} --profile {profile}`.\n"
    write_atomic(folder / f"{name}.md", text)
    write_atomic(folder / f"{name}.tex", "\n".join(map(latex, written)))
    write_atomic(folder / f"{name}.html", html(written, title=name))
    if readme is not None:
        write_atomic(readme, replace_between_markers(Path(readme).read_text(encoding="utf-8"), name, text))


def _committed(records: str | Path, found: Sequence[Row]) -> list[Row]:
    """The house's own records of these rows; submissions of others, which lie beside them, are not read."""
    places = {Path(records) / r.dataset.name / f"v{r.dataset.version.partition('.')[0]}" for r in found}
    files = sorted(path for place in places for path in place.glob("*/*-seed*/*.json"))
    known, alike = {row.key for row in found}, {_loosely(row) for row in found}
    return rows([r for r in collect(files) if row_key(r) in known or r.dataset.simulated and _loosely(r) in alike])
