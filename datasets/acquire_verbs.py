"""``tidemark acquire``: find and fetch raw scenes; each command imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Find raw scenes in their archives and fetch them.")

Out = Annotated[Path, typer.Option(help="Folder for the products.")]
Start = Annotated[str, typer.Option(help="First day, such as 2007-05-01.")]
End = Annotated[str, typer.Option(help="Last day.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Search, decide and show sizes; fetch nothing.")]
Jobs = Annotated[int, typer.Option(min=1, max=32, help="Files fetched at a time.")]
MaxBytes = Annotated[str | None, typer.Option(help="Limit on all that is to come, such as 50GB.")]
Config = Annotated[Path | None, typer.Option(help="Archives instead of those of configs/acquire.yaml.")]


@app.command("alos-dswe")
def alos_dswe(
    out: Out,
    aoi: Annotated[str | None, typer.Option(help="west,south,east,north in degrees, or a vector file.")] = None,
    start: Annotated[str | None, typer.Option(help="First day, such as 2007-05-01.")] = None,
    end: Annotated[str | None, typer.Option(help="Last day.")] = None,
    from_list: Annotated[
        Path | None, typer.Option(help="CSV with granule and tiles, such as the report of an earlier run.")
    ] = None,
    dry_run: DryRun = False,
    jobs: Jobs = 4,
    max_bytes: MaxBytes = None,
    config: Config = None,
) -> None:
    """ALOS PALSAR with Landsat's surface water, a composite and terrain, for `tidemark build alos-dswe`."""
    from functools import partial

    from .acquire.alos_command import acquire_alos_dswe
    from .acquire.progress import parse_bytes, transfer_bar
    from .command import progress_bar

    acquire_alos_dswe(
        out,
        aoi=aoi,
        start=start,
        end=end,
        listed=from_list,
        dry_run=dry_run,
        jobs=jobs,
        max_bytes=parse_bytes(max_bytes),
        config=config,
        looking=partial(progress_bar, "pairs"),
        progress=partial(transfer_bar, "fetch"),
    )
