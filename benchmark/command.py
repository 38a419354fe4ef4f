"""What ``tidemark evaluate`` and ``tidemark reproduce`` print."""

from __future__ import annotations

from pathlib import Path


def print_result_schema() -> None:
    """Print the JSON Schema of ``result.json``."""
    import json

    from .records import result_schema

    print(json.dumps(result_schema(), indent=1))


def evaluate_command(run: Path | None, split: str, dataset: Path | None = None, speed: bool = False) -> Path:
    """Score a run, show its figures by metric and unit, and where the record is; returns that path.

    Args:
        run: the run's folder.
        split: name of the split.
        dataset: version folder of another data set with the same bands; None: the one the run was made on.
        speed: measure throughput too.

    Raises:
        InputError: no run is given.
    """
    import rich

    from ..errors import InputError
    from .evaluate import evaluate_run
    from .records import read_result
    from .render import console
    from .tables import rows, table

    if run is None:
        raise InputError("which run?", hint="tidemark evaluate RUN, or --schema")
    path = evaluate_run(run, split, dataset=dataset, speed=speed)
    rich.print(console(table(rows([read_result(path)]))))
    print(path)
    return path


def reproduce_command(
    table: str,
    profile: str = "cpu",
    data_root: Path = Path("data"),
    out: Path = Path("runs"),
    records: Path | None = None,
    check: bool = False,
    readme: Path | None = None,
    workers: int = 1,
    gpus: str = "",
    dask: str | None = None,
    shard: str | None = None,
) -> None:
    """Make a table, printing a line per run and the table at the end; see ``reproduce``."""
    import signal
    import sys

    import rich

    from .render import console
    from .reproduce import Where, reproduce

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runs' processes end with this one
    where = Where(workers, tuple(gpu.strip() for gpu in gpus.split(",") if gpu.strip()), dask, shard)
    made = reproduce(table, profile, data_root, out, records=records, check=check, readme=readme, where=where)
    for one in made.tables:
        rich.print(console(one))
    kept = f", records: {records}" if records and not check else ""
    if shard is not None:
        print(f"part {shard} of {table} is done{kept}; without --shard the table is put together")
        return
    print(f"tables: {out / 'tables'}{kept}")
    if check:
        print(f"every figure of {table} is the committed one, within its interval or tolerance")


def import_command(
    paths: list[Path], dataset: Path, split: str, out: Path, probabilities: list[Path], options: dict
) -> None:
    """Bring foreign predictions into a run folder and say what comes next; see ``import_predictions``."""
    from .imports import import_predictions

    run = import_predictions(paths, dataset, split, out, probabilities=probabilities, **options)
    print(f"{run}; next: tidemark evaluate {run} --split {split}")


def uncertainty_command(runs: list[Path], method: str, out: Path | None, beside: list[Path], options: dict) -> None:
    """Calibrate and measure an uncertainty, or draw measurements side by side; print the figures; see ``interval_run``.

    Raises:
        InputError: no run, no method, or neither a run nor measurements.
    """
    import rich

    from ..errors import InputError
    from .interval_figure import draw
    from .interval_record import read_record, uncertainty_table
    from .interval_run import measure_uncertainty

    records = [read_record(path) for path in beside]
    if runs and not method:
        raise InputError("which method?", where="--method", hint="gaussian, mc-dropout or ensemble")
    if runs:
        records.insert(0, measure_uncertainty(runs, method, out, **options))
    elif not records or out is None:
        raise InputError("which run?", hint="tidemark uncertainty RUN… --method M, or --beside MEASURED… --out FOLDER")
    if beside:
        folder = out or runs[0] / f"uncertainty-{method}"
        folder.mkdir(parents=True, exist_ok=True)
        draw(records, folder / "uncertainty.png")
    rich.print(uncertainty_table(records))
    print(out or runs[0] / f"uncertainty-{method}")
