"""Make a published table again by one command: train, predict, score, compare.

A table is ``configs/tables/<name>.yaml``. Every run is a child process, so a crash costs one run; a run whose verified
result lies there is not repeated, so an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..datasets.files import sha256_file, write_atomic
from ..errors import FormatError, PartialResultError, TidemarkError
from ..models.predictions import PREDICTIONS_NAME
from ..models.runs import RUN_NAME, read_run
from .records import RESULT_NAME, Result, read_result, write_result
from .render import latex, markdown, replace_between_markers
from .scores import check_figures
from .sweep import PACKAGE, Job, TableSpec, load_table, plan
from .tables import Row, Table, collect, number, row_key, rows
from .tables import table as table_of

RECORDS = Path("leaderboard/submissions")


@dataclass(frozen=True)
class Reproduced:
    """What came out: the tables with their marks, and one record per run and split."""

    tables: tuple[Table, ...]
    results: tuple[Result, ...]


def reproduce(
    table: str | Path,
    profile: str = "cpu",
    data_root: str | Path = "data",
    out: str | Path = "runs",
    *,
    records: str | Path | None = None,
    check: bool = False,
    readme: str | Path | None = None,
    say: Callable[[str], None] = print,
) -> Reproduced:
    """Run what is missing of a table, write it as Markdown and LaTeX, and publish or compare its records.

    Args:
        table: name or path of the table.
        profile: ``cpu`` or ``full``.
        data_root: folder of all data sets.
        out: folder of all runs; the tables go to ``<out>/tables``.
        records: folder that takes a copy of each record as soon as it is there, usually ``leaderboard/submissions``
            of a checkout; None: nothing is published.
        check: publish nothing, compare with the records under ``records`` (None: those that come with the package).
        readme: a Markdown file whose markers ``<!-- table:NAME -->`` take the table.
        say: takes one line per run.

    Raises:
        PartialResultError: some runs failed; the others are done, scored and kept.
        TidemarkError: ``check`` found figures that differ.
    """
    spec, name = load_table(table), Path(table).stem
    jobs = plan(spec, profile, data_root, out)
    if readme is not None:
        replace_between_markers(Path(readme).read_text(encoding="utf-8"), name, "")  # fails now, not after the runs
    results, failed = [], []
    for count, job in enumerate(jobs, 1):
        start = time.monotonic()
        try:
            ran = _run(job, Path(out) / "logs" / f"{job.run_id}.log", spec.speed)
            made = [verified_result(job, split) for split in job.splits]
        except TidemarkError as error:
            failed.append(f"{job}: {error}")
            say(f"[{count}/{len(jobs)}] {job}: failed: {error}")
            continue
        results += made
        if records is not None and not check:
            for result in made:
                write_result(record_path(records, job, result), result)
        figure = ", ".join(f"{r.dataset.split} {number(r.headline.value)}" for r in made)
        say(f"[{count}/{len(jobs)}] {job}: {figure} ({f'{time.monotonic() - start:.0f} s' if ran else 'was there'})")
    found = rows(results)
    written = _tables(spec, found)
    _write(written, name, profile, Path(out) / "tables", readme if not failed else None)
    if failed:
        raise PartialResultError(
            f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}",
            where=name,
            hint="give the same command again, finished runs are kept",
        )
    if check and (faults := differences(found, _committed(records or PACKAGE / RECORDS, found), spec.tolerance)):
        raise TidemarkError(f"{len(faults)} figures differ from the committed ones: {'; '.join(faults)}", where=name)
    return Reproduced(tuple(written), tuple(results))


def verified_result(job: Job, split: str) -> Result:
    """The record of a run on a split if it fits the data, the run, its predictions and its own integers.

    Raises:
        FormatError: what does not fit.
    """
    path = job.folder / split / RESULT_NAME
    result, info = read_result(path), read_run(job.folder)
    if (result.dataset.content_sha256, result.dataset.split) != (job.manifest.content_sha256, split):
        raise FormatError("scored on other data", where=path)
    if (result.seed, result.model.weights_sha256) != (job.seed, info.weights_sha256):
        raise FormatError("scored for another run", where=path)
    predictions = path.with_name(PREDICTIONS_NAME)
    if not predictions.is_file() or sha256_file(predictions) != result.predictions_sha256:
        raise FormatError("the predictions are not those that were scored", where=predictions)
    check_figures(result, where=path)
    return result


def record_path(records: str | Path, job: Job, result: Result) -> Path:
    """``<records>/<dataset>/v<major>/<model>/<run id>/<split>.json``."""
    data = result.dataset
    major = data.version.partition(".")[0]
    return Path(records) / data.name / f"v{major}" / result.model.name / job.run_id / f"{data.split}.json"


def differences(found: Sequence[Row], committed: Sequence[Row], tolerance: float) -> list[str]:
    """Headlines outside the committed interval, or, where that has none, further off than the tolerance."""
    known, faults = {row.key: row for row in committed}, []
    for row in found:
        name = f"{row.model.label} on {row.dataset.name} {row.dataset.version} {row.dataset.split}"
        if row.key not in known:
            faults.append(f"{name}: no committed figure")
            continue
        new, old = row.headline.mean, known[row.key].headline
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


def _run(job: Job, log: Path, speed: bool) -> bool:
    """Train, predict and score what is missing, each in its own process; False where nothing was."""
    if all(_verified(job, split) for split in job.splits):
        return False
    log.parent.mkdir(parents=True, exist_ok=True)
    if not _trained(job):
        afresh = ["TRAIN.RESUME", "false"] if (job.folder / RUN_NAME).exists() else []  # else it counts as done
        _child(["train", job.recipe, *job.overrides, *afresh], log)
    for split in job.splits:
        if not _verified(job, split):
            timed = ["--speed"] if speed and split == job.splits[0] else []
            _child(["evaluate", str(job.folder), "--split", split, *timed], log)
    return True


def _verified(job: Job, split: str) -> bool:
    try:
        verified_result(job, split)
    except FormatError:
        return False
    return True


def _trained(job: Job) -> bool:
    """A finished run, with weights or with the predictions that cannot be made without."""
    try:
        weights = read_run(job.folder).weights_sha256
    except FormatError:
        return False
    return weights is not None or all((job.folder / split / PREDICTIONS_NAME).is_file() for split in job.splits)


def _child(arguments: list[str], log: Path) -> None:
    """One ``tidemark`` command, its output appended to ``log``; a TidemarkError carries its last line."""
    # -P: the present folder may hold a datasets/ or models/ that would shadow other packages.
    command = [sys.executable, "-P", "-m", __package__.partition(".")[0], *arguments]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {shlex.join(['tidemark', *arguments])}\n")
        file.flush()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        raise TidemarkError(f"`tidemark {arguments[0]}` ended with {code}: {last[-300:]}", where=log)


def _tables(spec: TableSpec, found: Sequence[Row]) -> list[Table]:
    written = []
    for part in spec.parts:
        for split in part.splits:
            group = [
                row
                for row in found
                if (row.dataset.name, row.dataset.version, row.dataset.split) == (part.dataset, part.version, split)
            ]
            if group:
                made = table_of(group)
                written.append(replace(made, title=f"{made.title}: {part.mark}") if part.mark else made)
    return written


def _write(written: Sequence[Table], name: str, profile: str, folder: Path, readme: str | Path | None) -> None:
    text = "\n".join(map(markdown, written)) + f"\nMade by `tidemark reproduce {name} --profile {profile}`.\n"
    write_atomic(folder / f"{name}.md", text)
    write_atomic(folder / f"{name}.tex", "\n".join(map(latex, written)))
    if readme is not None:
        write_atomic(readme, replace_between_markers(Path(readme).read_text(encoding="utf-8"), name, text))


def _committed(records: str | Path, found: Sequence[Row]) -> list[Row]:
    places = {Path(records) / r.dataset.name / f"v{r.dataset.version.partition('.')[0]}" for r in found}
    known = {row.key for row in found}
    return rows([r for r in collect(p for p in sorted(places) if p.is_dir()) if row_key(r) in known])
