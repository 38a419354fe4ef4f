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


Bbox = Annotated[str, typer.Option(help="west,south,east,north in degrees.")]


@app.command()
def l8s2(
    bbox: Bbox,
    start: Start,
    end: End,
    out: Out,
    max_days: Annotated[int, typer.Option(min=0, max=30, help="Between Landsat and Sentinel-2.")] = 1,
    cloud: Annotated[float, typer.Option(min=0, max=100, help="Cloud cover of a scene at most, percent.")] = 10.0,
    min_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the area that both must see.")] = 0.5,
    whole: Annotated[
        bool, typer.Option("--whole/--crop", help="The archives' own files, or the parts around the area.")
    ] = False,
    dry_run: DryRun = False,
    jobs: Jobs = 4,
    max_bytes: MaxBytes = None,
    config: Config = None,
) -> None:
    """Landsat-8 with its panchromatic band and Sentinel-2 within days, for `tidemark build l8s2` and `predict`."""
    from .acquire.commands import acquire_l8s2
    from .acquire.l8s2 import Limits
    from .acquire.progress import parse_bytes, transfer_bar

    limits = Limits(max_days, cloud, cloud, min_share)
    options = {"whole": whole, "dry_run": dry_run, "jobs": jobs, "max_bytes": parse_bytes(max_bytes), "config": config}
    with transfer_bar("fetch") as progress:
        acquire_l8s2(bbox, start, end, out, limits, progress=progress, **options)


@app.command()
def s1(
    bbox: Bbox,
    start: Start,
    end: End,
    out: Out,
    orbits: Annotated[str, typer.Option(help="both, ascending or descending.")] = "both",
    max_days: Annotated[int, typer.Option(min=0, max=366, help="Between the two orbits.")] = 12,
    min_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the area that a pass must see.")] = 0.9,
    first_number: Annotated[int, typer.Option(min=1, max=9999, help="Number of the first scene.")] = 40,
    dry_run: DryRun = False,
    jobs: Jobs = 4,
    max_bytes: MaxBytes = None,
    config: Config = None,
) -> None:
    """Sentinel-1 backscatter (RTC, dB) of both orbits on one grid, in the layout of `tidemark build tibet-water`."""
    from .acquire.commands import acquire_s1
    from .acquire.progress import parse_bytes, transfer_bar

    rule = {"orbits": orbits, "max_days": max_days, "min_share": min_share, "first_number": first_number}
    options = {"dry_run": dry_run, "jobs": jobs, "max_bytes": parse_bytes(max_bytes), "config": config}
    with transfer_bar("fetch") as progress:
        acquire_s1(bbox, start, end, out, progress=progress, **rule, **options)


def availability(
    bbox: Bbox,
    year: Annotated[int, typer.Option(min=2013, max=2100, help="Year of the dates.")],
    out: Annotated[Path, typer.Option(help="Folder for CSV and plot.")] = Path("."),
    cloud: Annotated[float, typer.Option(min=0, max=100, help="Cloud cover of a scene at most, percent.")] = 10.0,
    min_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the area to be covered.")] = 0.9,
    config: Config = None,
) -> None:
    """Count cloud-free dates a month: Landsat-8, Sentinel-2 and both united."""
    from .acquire.commands import availability as count

    count(bbox, year, out, max_cloud_percent=cloud, min_share=min_share, config=config)
