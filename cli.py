"""The ``tidemark`` command: every verb imports what it needs when it runs and calls one function."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .leaderboard.command import submit_app

app = typer.Typer(
    name="tidemark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="HDF5 data sets, models and benchmarks for water, ice and reflectance from satellites.",
)
leaderboard_app = typer.Typer(no_args_is_help=True, help="The leaderboard and its page.")
bench_app = typer.Typer(no_args_is_help=True, help="Throughput on this machine, as ratios measured in one run.")
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(bench_app, name="bench")
app.add_typer(submit_app, name="submit")

Folder = Annotated[Path, typer.Argument(help="A data set's folder, such as data/ombria/1.0.0.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="KEY VALUE pairs, such as TRAIN.EPOCHS 5.")]


@app.callback()
def _common(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["TIDEMARK_DEBUG"] = "1"


@app.command()
def doctor(json_output: Json = False) -> None:
    """Show versions, HDF5, GDAL, CUDA and codecs, and what is missing."""
    from .doctor import diagnose

    raise typer.Exit(diagnose(json_output))


@app.command("list")
def list_all(
    data_root: Annotated[Path, typer.Option(help="Where data sets lie.")] = Path("data"), json_output: Json = False
) -> None:
    """List builders, data sets on this disk with their size, models and tables."""
    from .doctor import inventory

    inventory(data_root, json_output)


@app.command()
def info(
    folder: Annotated[Path | None, typer.Argument(help="A data set's folder.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the manifest's JSON Schema.")] = False,
    json_output: Json = False,
) -> None:
    """Show what a data set is."""
    from .doctor import describe

    describe(folder, schema, json_output)


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
    codec: Annotated[str, typer.Option(help="blosc, gzip or none.")] = "blosc",
    workers: Annotated[int, typer.Option(help="Shards made at a time.")] = 2,
    dask: Annotated[str | None, typer.Option(help="Scheduler tcp://…, 'local' or 'local:N'.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: only this part of a job array.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Publish what the parts of a job array made.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first unusable scene.")] = False,
) -> None:
    """Build a data set from raw scenes; a build that was stopped goes on."""
    from .datasets.command import build_command, parse_parameters

    given = {"labels": labels, "official_split": official_split, "unverified_source": unverified_source}
    given = {name: value for name, value in given.items() if value} | parse_parameters(param or [])
    options = {"codec": codec, "workers": workers, "shard": shard, "strict": strict, "merge": merge}
    build_command(name, spec or source, out, given, dask, options)


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
) -> None:
    """Simulate Sentinel-1-like scenes with their water polygons, or raw products of one of the four systems."""
    if product is not None:
        from .datasets.simulate.products import refuse_options, simulate_product

        refuse_options(name=name != "s1-water-simulated", val=val, test=test, looks=looks != 4.4)
        written = simulate_product(product, out, seed=seed, scenes=4 if scenes is None else scenes, size=size)
        print(f"{len(written)} simulated products in {out}; next: tidemark build {product} --source {out}")
        return
    from .datasets.simulate import simulate_scenes

    number, options = 12 if scenes is None else scenes, {"name": name, "val": val, "test": test}
    paths = simulate_scenes(out, number, size or 1024, seed, looks, **options)
    print(f"{len(paths)} simulated scenes in {out}; next: tidemark build custom --spec {out / 'spec.yaml'}")


@app.command()
def verify(
    folder: Folder,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every chip and count again.")] = False,
) -> None:
    """Compare a data set's files with its manifest."""
    from .datasets.command import verify_command

    raise typer.Exit(verify_command(folder, deep))


@app.command()
def pull(
    reference: Annotated[str, typer.Argument(help="ORG/NAME, or ORG/NAME@1.0.0, of the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option(help="Root folder of data sets.")] = Path("data"),
    split: Annotated[list[str] | None, typer.Option(help="Only this split (may be repeated).")] = None,
    scene: Annotated[list[str] | None, typer.Option(help="Only the shards of this scene (may be repeated).")] = None,
    bbox: Annotated[str | None, typer.Option(help="Only what meets west,south,east,north, degrees.")] = None,
) -> None:
    """Download a published data set, or a part of it; every file is verified."""
    from .datasets.hub_command import pull_command

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
    from .datasets.hub_command import push_command

    push_command(folder, repo, private, dry_run, rights)


@app.command("push-model")
def push_model(
    run: Annotated[Path, typer.Argument(help="A run folder or a folder of weights.")],
    repo: Annotated[str, typer.Option(help="Repository on the Hugging Face Hub, ORG/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, send nothing.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag to set on the commit.")] = None,
) -> None:
    """Publish weights with their card."""
    from .models.hub import push_model as push_weights

    done = push_weights(run, repo, private=private, dry_run=dry_run, tag=tag)
    print(f"{done.repo}: {', '.join(done.files)}, " + (f"commit {done.commit}" if done.commit else "not sent"))


@app.command("pull-model")
def pull_model(
    source: Annotated[str, typer.Argument(help="ORG/NAME of the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option(help="Folder for its folder.")] = Path("models-pulled"),
    revision: Annotated[str | None, typer.Option(help="Tag, branch or commit.")] = None,
) -> None:
    """Download weights; they are verified and loaded once."""
    from .models.hub import pull_model as pull_weights

    print(pull_weights(source, out, revision))


@app.command()
def cache(clean: Annotated[bool, typer.Option("--clean", help="Remove what is shown.")] = False) -> None:
    """Show what downloads and streamed chips take, and remove them on request."""
    from .datasets.hub_command import cache_command

    cache_command(clean)


@app.command()
def export(
    folder: Folder,
    to: Annotated[str, typer.Option(help="geotiff, webdataset, zarr or index (GeoParquet and STAC).")],
    out: Annotated[Path, typer.Option(help="Folder for the new folder.")] = Path("exported"),
) -> None:
    """Write a data set in another form."""
    from .datasets.command import progress_bar
    from .datasets.export import export as export_dataset

    with progress_bar(f"export {to}") as progress:
        made = export_dataset(folder, to, out, progress)
    print(made)


@app.command("diff")
def diff_versions(
    old: Annotated[Path, typer.Argument(help="Folder of the older version.")],
    new: Annotated[Path, typer.Argument(help="Folder of the newer version.")],
    json_output: Json = False,
) -> None:
    """Show what changed between two versions of a data set, as its CHANGELOG tells it."""
    import json

    from .datasets.diff import changelog_entry, diff

    found = diff(old, new)
    print(json.dumps(found.as_json(), indent=1) if json_output else changelog_entry(found))


@app.command()
def audit(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder for audit.json and audit.html.")] = None,
) -> None:
    """Look for leaks between the splits, and for other defects."""
    from .datasets.command import audit_command

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
    from .datasets.plots import contact_sheet

    contact_sheet(folder, split, out, n=chips, seed=seed)
    print(out)


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    config: Annotated[str, typer.Argument(help="A recipe, such as configs/ombria/unet.yaml.")],
    overrides: Overrides = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the whole configuration.")] = False,
) -> None:
    """Train a model (or fit a trivial row) by a recipe."""
    from .configs import dump, load_config

    cfg = load_config(config, overrides or [])
    if print_config:
        print(dump(cfg))
        return
    from .models.session import process_rank
    from .models.train import train as run_training

    folder = run_training(cfg)
    if process_rank(cfg.TRAIN.DEVICES * cfg.TRAIN.NODES) == 0:
        print(folder)


@app.command()
def evaluate(
    run: Annotated[Path | None, typer.Argument(help="A run's folder, as train printed it.")] = None,
    split: Annotated[str, typer.Option(help="Split to score.")] = "test",
    dataset: Annotated[Path | None, typer.Option(help="Score on another data set with the same bands.")] = None,
    speed: Annotated[bool, typer.Option("--speed", help="Measure throughput too.")] = False,
    examples: Annotated[int, typer.Option(help="Write this many example maps.")] = 0,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of result.json.")] = False,
) -> None:
    """Score a run's predictions (made first where they are missing) and write result.json."""
    from .benchmark.command import evaluate_command, print_result_schema

    if schema:
        print_result_schema()
        return
    result = evaluate_command(run, split, dataset, speed)
    if examples:
        from .leaderboard.examples import write_examples

        for png in write_examples(run, split, result.parent, examples):
            print(png)


@app.command()
def predict(
    scene: Annotated[Path, typer.Argument(help="A GeoTIFF scene.")],
    weights: Annotated[
        list[str], typer.Option(help="Folder of weights, or a run's; more for tiles where the first lacks data.")
    ],
    out: Annotated[Path, typer.Option(help="GeoTIFF to write.")] = Path("water.tif"),
    overlap: Annotated[float, typer.Option(help="Share of a tile shared with its neighbour.")] = 0.5,
    tile: Annotated[int, typer.Option(help="Tile size in pixels.")] = 256,
    blend: Annotated[str, typer.Option(help="hann, crop, or published (as GMNet's authors).")] = "hann",
    bands: Annotated[str, typer.Option(help="Names of the file's bands, such as vv_asc,vh_asc.")] = "",
    polygons: Annotated[Path | None, typer.Option(help="GeoPackage for the classes as polygons.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Map a whole scene: class map and probability as GeoTIFF on the scene's grid."""
    from .models.predict import predict_scene

    names = [name.strip() for name in bands.split(",")] if bands else []
    predict_scene(
        scene, weights, out, overlap=overlap, tile=tile, blend=blend, polygons=polygons, device=device, bands=names
    )
    print(out)


@app.command("import-weights")
def import_weights(
    model: Annotated[str, typer.Argument(help="gmnet.")],
    file: Annotated[Path, typer.Argument(help="The released checkpoint (.pth).")],
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    orbit: Annotated[str | None, typer.Option(help="ascending, descending or both.")] = None,
) -> None:
    """Convert a released checkpoint to a folder of weights; nothing in it is executed."""
    from .models.import_weights import import_weights as convert

    found = convert(model, file, out, orbit=orbit)
    for key in found.unused:
        print(f"unused {key}")
    rest = f"{found.unused_parameters} more in {len(found.unused)} unused tensors"
    print(f"{found.folder}: {found.parameters} parameters; {rest}")


@app.command("import-predictions")
def import_predictions(
    paths: Annotated[list[Path], typer.Argument(help="GeoTIFF, .npy or .npz files, or folders of them.")],
    dataset: Annotated[Path, typer.Option(help="The data set's folder, such as data/ombria/1.0.0.")],
    out: Annotated[Path, typer.Option(help="Run folder to make, or to add a split to.")],
    split: Annotated[str, typer.Option(help="Split that was predicted.")] = "test",
    probabilities: Annotated[list[Path] | None, typer.Option(help="Files of probabilities; may be repeated.")] = None,
    model: Annotated[str, typer.Option(help="Name of the model: small letters, digits, -.")] = "foreign",
    label: Annotated[str, typer.Option(help="Its name in tables.")] = "",
    seed: Annotated[int | None, typer.Option(help="Seed of its training.")] = None,
    parameters: Annotated[int, typer.Option(help="Number of its parameters.")] = 0,
) -> None:
    """Bring class maps or reflectance of any model into a run folder, to be scored like one of ours."""
    from .benchmark.command import import_command

    options = {"model": model, "label": label, "seed": seed, "parameters": parameters}
    import_command(paths, dataset, split, out, probabilities or [], options)


@app.command()
def reproduce(
    table: Annotated[str, typer.Argument(help="A table of configs/tables, such as ombria.")],
    profile: Annotated[str, typer.Option(help="cpu or full.")] = "cpu",
    data_root: Annotated[Path, typer.Option(help="Where data sets lie.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder of runs.")] = Path("runs"),
    records: Annotated[Path | None, typer.Option(help="Where results are kept.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare with the committed figures.")] = False,
    readme: Annotated[Path | None, typer.Option(help="Write the table between its markers.")] = None,
    workers: Annotated[int, typer.Option(help="Runs side by side; they share the cores.")] = 1,
    gpus: Annotated[str, typer.Option(help="Devices such as 0,1: one run at a time on each.")] = "",
    dask: Annotated[str | None, typer.Option(help="Scheduler tcp://…, or 'local'.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: only this part of a job array.")] = None,
) -> None:
    """Make a benchmark table; finished runs are kept, so a stopped one goes on."""
    from .benchmark.command import reproduce_command

    reproduce_command(table, profile, data_root, out, records, check, readme, workers, gpus, dask, shard)


@bench_app.command("loader")
def bench_loader(
    quick: Annotated[bool, typer.Option("--quick", help="Few samples, small data: shows that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON record to write.")] = None,
) -> None:
    """ChipLoader against GeoTIFF data loaders, plain h5py and memcpy."""
    from .benchmark.throughput import bench_loader as run_bench

    run_bench(quick=quick, out=out)


@bench_app.command("stream")
def bench_stream(
    quick: Annotated[bool, typer.Option("--quick", help="Little data, once: shows that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON record to write.")] = None,
) -> None:
    """Streaming from a hub on localhost against download-then-read, with latency and a slow line."""
    from .benchmark.streaming import bench_stream as run_bench

    run_bench(quick=quick, out=out)


Subject = Annotated[str, typer.Argument(help="A run, a folder of weights, owner/name, or a registered model.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Threads = Annotated[int, typer.Option(help="CPU threads; 0: all cores.")]
Batch = Annotated[int, typer.Option(help="Chips per batch; 0: 8 on a CPU, 64 on a GPU.")]
Precision = Annotated[list[str] | None, typer.Option(help="fp32, bf16; repeat for both, the default.")]
Compile = Annotated[bool, typer.Option("--compile/--no-compile", help="Rows with torch.compile too.")]
Repeats = Annotated[int, typer.Option(min=1, max=1000, help="Fresh processes for each row.")]
Quick = Annotated[bool, typer.Option("--quick", help="Tiny and short: shows that it runs, measures nothing.")]
Record = Annotated[Path | None, typer.Option(help="JSON record to write.")]
Channels = Annotated[int, typer.Option(min=1, max=255, help="Bands of synthetic input, for a registered model.")]
Arguments = Annotated[list[str] | None, typer.Option("--arg", help="NAME=VALUE of a registered model; repeat.")]
Chips = Annotated[Path | None, typer.Option("--dataset", help="Version folder; by default the run's.")]
ChipSplit = Annotated[str, typer.Option("--split", help="Split to read, and to score each precision on.")]
Side = Annotated[int, typer.Option(min=16, max=4096, help="Side of a synthetic chip, or of a scene's tiles, in px.")]


def _bench(kind: str, target: str, arguments: list[str] | None, out: Path | None, **given) -> None:
    from .benchmark.model_bench import Request, bench_speed
    from .datasets.command import parse_parameters

    given["precisions"] = tuple(given.pop("precision") or ())
    bench_speed(Request(kind=kind, target=target, arguments=parse_parameters(arguments or []), **given), out)


@bench_app.command("model")
def bench_model(
    model: Subject,
    dataset: Chips = None,
    split: ChipSplit = "val",
    channels: Channels = 2,
    size: Side = 256,
    arg: Arguments = None,
    device: Device = "auto",
    threads: Threads = 0,
    batch: Batch = 0,
    precision: Precision = None,
    compiled: Compile = True,
    repeats: Repeats = 3,
    quick: Quick = False,
    out: Record = None,
) -> None:
    """The network alone, tensors resident on the device, against the reference U-Net."""
    given = {"device": device, "threads": threads, "batch": batch, "precision": precision, "compiled": compiled}
    given |= {"dataset": dataset, "split": split, "channels": channels, "size": size}
    _bench("model", model, arg, out, repeats=repeats, quick=quick, **given)


@bench_app.command("end-to-end")
def bench_end_to_end(
    model: Subject,
    dataset: Chips = None,
    split: ChipSplit = "val",
    channels: Channels = 2,
    size: Side = 256,
    arg: Arguments = None,
    device: Device = "auto",
    threads: Threads = 0,
    batch: Batch = 0,
    precision: Precision = None,
    compiled: Compile = True,
    repeats: Repeats = 3,
    quick: Quick = False,
    out: Record = None,
) -> None:
    """HDF5 shards to class maps in host memory, files in the page cache."""
    given = {"device": device, "threads": threads, "batch": batch, "precision": precision, "compiled": compiled}
    given |= {"dataset": dataset, "split": split, "channels": channels, "size": size}
    _bench("end-to-end", model, arg, out, repeats=repeats, quick=quick, **given)


@bench_app.command("scene")
def bench_scene(
    model: Subject,
    scene: Annotated[Path | None, typer.Option(help="GeoTIFF; by default a synthetic one.")] = None,
    channels: Channels = 2,
    size: Side = 256,
    arg: Arguments = None,
    device: Device = "auto",
    threads: Threads = 0,
    batch: Batch = 0,
    precision: Precision = None,
    compiled: Compile = True,
    repeats: Repeats = 3,
    quick: Quick = False,
    out: Record = None,
) -> None:
    """A whole GeoTIFF to a class map as GeoTIFF, tiles overlapping by half."""
    given = {"device": device, "threads": threads, "batch": batch, "precision": precision, "compiled": compiled}
    given |= {"scene": scene, "channels": channels, "size": size}
    _bench("scene", model, arg, out, repeats=repeats, quick=quick, **given)


@leaderboard_app.command("build")
def leaderboard_build(
    records: Annotated[list[Path] | None, typer.Argument(help="Folders of result records.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for index.html and the data beside it.")] = Path("site"),
) -> None:
    """Render the leaderboard page from submissions and result records."""
    from .leaderboard.site import build_site

    print(build_site(records or [Path(__file__).parent / "leaderboard" / "submissions"], out))


@leaderboard_app.command("publish")
def leaderboard_publish(
    out: Annotated[Path, typer.Option(help="A new folder, or one published before.")],
    records: Annotated[list[Path] | None, typer.Argument(help="Folders of submissions and result records.")] = None,
) -> None:
    """Write the page as a Hugging Face static Space, ready to upload."""
    from .leaderboard.publish import publish

    folder = publish(records or [Path(__file__).parent / "leaderboard" / "submissions"], out)
    print(f"{folder}; upload it: hf upload OWNER/NAME {folder} --repo-type space")


@leaderboard_app.command("card")
def leaderboard_card(
    weights: Annotated[Path, typer.Argument(help="A folder of weights, or a run's.")],
    records: Annotated[list[Path], typer.Argument(help="Result records of these weights.")],
) -> None:
    """Enter the scores of records into the model card beside the weights (README.md, its model-index)."""
    from .leaderboard.publish import score_card

    print(score_card(weights, records))


def main() -> None:
    """Run the command line; Tidemark's errors end in one line and their exit code."""
    from .errors import TidemarkError

    try:
        app()
    except TidemarkError as error:
        if os.environ.get("TIDEMARK_DEBUG"):
            raise
        print(f"tidemark: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
