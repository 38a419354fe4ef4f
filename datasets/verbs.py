"""Commands on data sets; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import acquire_verbs

app = typer.Typer()
app.add_typer(acquire_verbs.app, name="acquire")
app.command()(acquire_verbs.availability)

Folder = Annotated[Path, typer.Argument(help="A data set's folder, such as data/ombria/1.0.0.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="The builder; 'tidemark list' names them.")],
    source: Annotated[Path | None, typer.Option(help="The source's zip or folder.")] = None,
    spec: Annotated[Path | None, typer.Option(help="Specification (YAML) of a custom data set.")] = None,
    out: Annotated[Path, typer.Option(help="Root folder of data sets.")] = Path("data"),
    labels: Annotated[str | None, typer.Option(help="polar-patch: stored (1.0.0) or repaired (2.0.0).")] = None,
    official_split: Annotated[bool, typer.Option("--official-split", help="The split as published.")] = False,
    unverified_source: Annotated[
        bool, typer.Option("--unverified-source", help="Accept changed source files.")
    ] = False,
    param: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE: a parameter of the builder, such as orbits=ascending.")
    ] = None,
    codec: Annotated[str, typer.Option(help="blosc, blosc-hc (smaller, slow to write), gzip or none.")] = "blosc",
    workers: Annotated[int, typer.Option(help="Shards made at a time.")] = 2,
    dask: Annotated[str | None, typer.Option(help="Scheduler tcp://…, 'local' or 'local:N'.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: only this part of a job array.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Publish what the parts of a job array made.")] = False,
    save_plan: Annotated[Path | None, typer.Option(help="Write the plan to this file and build nothing.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A saved plan, instead of source and parameters.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unusable scene.")] = False,
) -> None:
    """Build a data set from raw scenes; a build that was stopped goes on."""
    from .command import build_command, parse_parameters

    given = {"labels": labels, "official_split": official_split, "unverified_source": unverified_source}
    given = {name: value for name, value in given.items() if value} | parse_parameters(param or [])
    options = {"codec": codec, "workers": workers, "shard": shard, "strict": strict, "merge": merge}
    build_command(name, spec or source, out, given, dask, options, plan, save_plan)


@app.command()
def simulate(
    out: Annotated[Path, typer.Option(help="Folder for scenes and their truth.")] = Path("scenes"),
    scenes: Annotated[int | None, typer.Option(help="Number of scenes (12; of a product 4).")] = None,
    size: Annotated[int | None, typer.Option(help="Rows and columns of a scene (1024; l8s2 768).")] = None,
    seed: Annotated[int, typer.Option(help="Everything is drawn from it.")] = 0,
    product: Annotated[
        str | None, typer.Option(help="Raw scenes of a system: alos-dswe, tibet-water, polar-ice or l8s2.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the data set to build from the scenes.")] = "s1-water-simulated",
    val: Annotated[int | None, typer.Option(help="Scenes for validation; a fifth by default.")] = None,
    test: Annotated[int | None, typer.Option(help="Scenes for the test; a fifth by default.")] = None,
    looks: Annotated[float, typer.Option(help="Equivalent number of looks of the speckle.")] = 4.4,
    wide: Annotated[bool, typer.Option("--wide", help="tibet-water: lakes and dark sand broader than a chip.")] = False,
) -> None:
    """Simulate Sentinel-1-like scenes with their water polygons, or raw products of one of the four systems."""
    if product is not None:
        from .simulate.products import refuse_options, simulate_product

        refuse_options(name=name != "s1-water-simulated", val=val, test=test, looks=looks != 4.4)
        number = 4 if scenes is None else scenes
        written = simulate_product(product, out, seed=seed, scenes=number, size=size, wide=wide)
        print(f"{len(written)} simulated products in {out}; next: tidemark build {product} --source {out}")
        return
    if wide:
        from ..errors import InputError

        raise InputError("--wide belongs to a product", hint="give --product tibet-water")
    from .simulate import simulate_scenes

    number, options = 12 if scenes is None else scenes, {"name": name, "val": val, "test": test}
    paths = simulate_scenes(out, number, 1024 if size is None else size, seed, looks, **options)
    print(f"{len(paths)} simulated scenes in {out}; next: tidemark build custom --spec {out / 'spec.yaml'}")


@app.command()
def verify(
    folder: Folder,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every chip and count again.")] = False,
) -> None:
    """Compare a data set's files with its manifest."""
    from .command import verify_command

    raise typer.Exit(verify_command(folder, deep))


@app.command()
def audit(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
) -> None:
    """Look for leaks between the splits, and for other defects."""
    from .command import audit_command

    raise typer.Exit(audit_command(folder, out))


@app.command()
def plot(
    folder: Folder,
    split: Annotated[str, typer.Option(help="Split.")] = "train",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("chips.png"),
    chips: Annotated[int, typer.Option(help="Number of chips.")] = 12,
    seed: Annotated[int, typer.Option(help="Which chips are drawn.")] = 0,
) -> None:
    """Write a contact sheet of chips as PNG."""
    from .plots import contact_sheet

    contact_sheet(folder, split, out, n=chips, seed=seed)
    print(out)


@app.command("diff")
def diff_versions(
    old: Annotated[Path, typer.Argument(help="Folder of the older version.")],
    new: Annotated[Path, typer.Argument(help="Folder of the newer version.")],
    json_output: Json = False,
) -> None:
    """Show what changed between two versions of a data set, as its CHANGELOG tells it."""
    import json

    from .diff import changelog_entry, diff

    found = diff(old, new)
    print(json.dumps(found.as_json(), indent=1) if json_output else changelog_entry(found))


@app.command()
def pull(
    reference: Annotated[str, typer.Argument(help="ORG/NAME, or ORG/NAME@1.0.0, of the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option(help="Root folder of data sets.")] = Path("data"),
    split: Annotated[list[str] | None, typer.Option(help="Only this split (may be repeated).")] = None,
    scene: Annotated[list[str] | None, typer.Option(help="Only the shards of this scene (may be repeated).")] = None,
    bbox: Annotated[str | None, typer.Option(help="Only what meets west,south,east,north, degrees.")] = None,
) -> None:
    """Download a published data set, or a part of it; every file is verified."""
    from .hub_command import pull_command

    pull_command(reference, out, split or (), scene or (), bbox)


@app.command()
def push(
    folder: Folder,
    repo: Annotated[str, typer.Option(help="Repository on the Hugging Face Hub, ORG/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and list, send nothing.")] = False,
    rights: Annotated[
        str, typer.Option("--i-hold-the-rights", help="Why it may be published, where its licence does not say so.")
    ] = "",
) -> None:
    """Publish a data set as a tagged version."""
    from .hub_command import push_command

    push_command(folder, repo, private, dry_run, rights)


@app.command()
def cache(clean: Annotated[bool, typer.Option("--clean", help="Remove what is shown.")] = False) -> None:
    """Show what downloads and streamed chips take, and remove them on request."""
    from .hub_command import cache_command

    cache_command(clean)


@app.command()
def export(
    folder: Folder,
    to: Annotated[str, typer.Option(help="geotiff, webdataset, zarr or index (GeoParquet and STAC).")],
    out: Annotated[Path, typer.Option(help="Folder for the new folder.")] = Path("exported"),
) -> None:
    """Write a data set in another form."""
    from .command import progress_bar
    from .export import export as export_dataset

    with progress_bar(f"export {to}") as progress:
        made = export_dataset(folder, to, out, progress)
    print(made)
