"""What ``tidemark build``, ``verify`` and ``audit`` do, with their progress bars and words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import get_args

from ..errors import InputError
from .build import build, builder_module, plan_data_set
from .plan import Plan
from .plan_file import read_plan, save_plan
from .spec import Codec
from .verify import verify


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on standard error as a ``progress(done, total, what)`` function, silent without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    columns = *columns, TextColumn("{task.fields[what]}")
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None, what="")
        yield lambda done, total, what: bar.update(task, completed=done, total=total, what=what)


def parse_parameters(given: list[str], lists: bool = False) -> dict[str, str | int | float | bool | list]:
    """``["max_days=3", "sampler=random"]`` as a dict; values that read as JSON numbers or booleans become those.

    ``lists``: JSON lists too, as in ``decoder_channels=[64,32]``.
    """
    parameters = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--param {text!r} is not NAME=VALUE")
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = value
        plain = isinstance(parsed, bool | int | float) or lists and isinstance(parsed, list)
        parameters[name] = parsed if plain else value
    return parameters


def build_command(
    name: str,
    source: Path | None,
    out: Path,
    parameters: dict,
    dask: str | None,
    options: dict,
    plan_file: Path | None = None,
    save: Path | None = None,
) -> None:
    """Plan and build with a progress bar, here or on a Dask cluster (``tcp://…``, ``local``, ``local:4``).

    ``plan_file``: a saved plan instead of source and parameters. ``save``: write the plan there and build nothing.
    """
    if options["workers"] < 1:
        raise InputError(f"--workers {options['workers']}: at least 1 is needed")
    if options["codec"] not in get_args(Codec):
        raise InputError(f"no codec {options['codec']!r}, there is {', '.join(get_args(Codec))}")
    module = import_module(builder_module(name))
    if plan_file is None:
        plan = _planned(name, module, source, parameters)
    elif source is not None or parameters:
        raise InputError("the plan names its source and parameters", where=plan_file, hint="leave them out")
    else:
        plan = read_plan(plan_file, name, module.VERSION)
    if save is not None:
        save_plan(plan, name, module.VERSION, save)
        print(f"{save}: {len(plan.shards)} shards; next: tidemark build {name} --plan {save} --out {out}")
        return
    with _executor(dask, options["workers"]) as executor, progress_bar(f"{name} {plan.header.version}") as progress:
        folder = build(plan, module.__name__, out, executor=executor, progress=progress, **options)
    print(folder if options["shard"] is None else f"part {options['shard']} of {plan.header.name} is done")


def _planned(name: str, module: ModuleType, source: Path | None, parameters: dict) -> Plan:
    if source is None:
        raise InputError("no source given", where=name, hint="--source ZIP_OR_FOLDER, or --spec FILE for custom")
    known = set(signature(module.plan).parameters) - {"source"}
    if unknown := sorted(set(parameters) - known):
        there = ", ".join(sorted(known)) or "none"
        raise InputError(f"the builder has no parameter {unknown[0]!r}, there is {there}", where=name)
    return plan_data_set(name, source, **parameters)


@contextmanager
def _executor(dask: str | None, workers: int):
    if dask is None:
        with nullcontext() as nothing:
            yield nothing
        return
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise InputError("Dask is not installed", hint="pip install 'tidemark[cluster]'") from None
    kind, _, count = dask.partition(":")
    if kind == "local" and count and not (count.isdecimal() and int(count) > 0):
        raise InputError(f"--dask {dask!r} is not local:N with N workers")
    cluster = LocalCluster(n_workers=int(count or workers), threads_per_worker=1) if kind == "local" else dask
    try:
        client = Client(cluster)
    except (OSError, ValueError) as error:
        hint = "give tcp://HOST:PORT of a scheduler, local or local:N"
        raise InputError(f"no scheduler answers ({error})", where=f"--dask {dask}", hint=hint) from None
    with client:
        yield client.get_executor()


def verify_command(folder: Path, deep: bool) -> int:
    """Print every problem, or that there is none; exit code 2 or 0."""
    with progress_bar("verify") as progress:
        outcome = verify(folder, deep, progress=progress)
    for problem in outcome.problems:
        print(problem)
    looked = "every chip decoded" if deep else "sha256 of every file"
    verdict = f"{len(outcome.problems)} problems" if outcome.problems else "verified"
    print(
        f"{verdict}: {folder}, {outcome.shards} shards, {outcome.chips} chips, {outcome.bytes / 1e6:.1f} MB ({looked})"
    )
    return 2 if outcome.problems else 0


def audit_command(folder: Path, out: Path | None) -> int:
    """Print the audit, write its JSON and HTML where asked; exit code 2 when a check fails."""
    from .audit import audit, write_report

    with progress_bar("audit") as show:
        report = audit(folder, show)
    print(report.text(), end="")
    if out is not None:
        print(write_report(report, folder, out / "audit.html"))
    return 2 if report.failed else 0
