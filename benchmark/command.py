"""What ``tidemark evaluate`` and ``tidemark reproduce`` print."""

from __future__ import annotations

from pathlib import Path


def evaluate_command(run: Path, split: str, dataset: Path | None = None, speed: bool = False) -> Path:
    """Score a run, show its figures by metric and unit, and where the record is; returns that path.

    Args:
        run: the run's folder.
        split: name of the split.
        dataset: version folder of another data set with the same bands; None: the one the run was made on.
        speed: measure throughput too.
    """
    import rich

    from .evaluate import evaluate_run
    from .records import read_result
    from .render import console
    from .tables import rows, table

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
) -> None:
    """Make a table, printing a line per run and the table at the end; see ``reproduce``."""
    import rich

    from .render import console
    from .reproduce import reproduce

    made = reproduce(table, profile, data_root, out, records=records, check=check, readme=readme)
    for one in made.tables:
        rich.print(console(one))
    print(f"tables: {out / 'tables'}" + (f", records: {records}" if records and not check else ""))
