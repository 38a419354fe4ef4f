"""Commands that score and time; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
bench_app = typer.Typer(no_args_is_help=True, help="Throughput on this machine, as ratios measured in one run.")
app.add_typer(bench_app, name="bench")


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
    from .command import evaluate_command, print_result_schema

    if schema:
        print_result_schema()
        return
    result = evaluate_command(run, split, dataset, speed)
    if examples:
        from ..leaderboard.examples import write_examples

        for png in write_examples(run, split, result.parent, examples, dataset=dataset):
            print(png)


@app.command()
def uncertainty(
    runs: Annotated[list[Path] | None, typer.Argument(help="A harmonization's run; several for an ensemble.")] = None,
    method: Annotated[str, typer.Option(help="gaussian, mc-dropout or ensemble.")] = "",
    split: Annotated[str, typer.Option(help="Split to measure coverage on.")] = "test",
    calibrate: Annotated[str, typer.Option(help="Split to calibrate on.")] = "val",
    dataset: Annotated[Path | None, typer.Option(help="The data's folder; by default where the run says.")] = None,
    passes: Annotated[int | None, typer.Option(help="Passes of mc-dropout; 20 by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for uncertainty.json and uncertainty.png.")] = None,
    beside: Annotated[list[Path] | None, typer.Option(help="uncertainty.json to draw beside; may be repeated.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Chips per step.")] = 4,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    keep: Annotated[bool, typer.Option(help="Write the factors into the weights' config.json.")] = True,
) -> None:
    """Calibrate a harmonization's standard deviation: coverage, sharpness, reliability before and after."""
    from .command import uncertainty_command

    options = {"split": split, "calibrate": calibrate, "dataset": dataset, "passes": passes}
    options |= {"batch_size": batch, "device": device, "keep": keep}
    uncertainty_command(runs or [], method, out, beside or [], options)


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
    from .command import import_command

    options = {"model": model, "label": label, "seed": seed, "parameters": parameters}
    import_command(paths, dataset, split, out, probabilities or [], options)


@app.command()
def series(
    maps: Annotated[list[Path], typer.Argument(help="Dated class maps, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Folder for rasters, tables and figure.")] = Path("series"),
    errors: Annotated[
        Path | None, typer.Option(help="The maps' errors: result.json of a run, or a CSV of sample points.")
    ] = None,
    regions: Annotated[Path | None, typer.Option(help="Polygons to report by: .gpkg, .geojson or .shp.")] = None,
    region_name: Annotated[str | None, typer.Option(help="Attribute that names them.")] = None,
    dates: Annotated[Path | None, typer.Option(help="CSV with the columns file and date.")] = None,
    date_pattern: Annotated[
        str | None, typer.Option(help="Regular expression for file names, groups year, month, day.")
    ] = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Name or number of the class (water).")] = None,
    min_seen: Annotated[float, typer.Option(help="Share of a region seen, for a month to count in the trend.")] = 0.95,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first map that cannot be used.")] = False,
) -> None:
    """Occurrence, monthly area with its uncertainty, and trend from dated maps."""
    from .series_command import series_command

    options = {"regions": regions, "region_name": region_name, "dates": dates, "pattern": date_pattern}
    series_command(maps, out, errors, class_name, **options, min_seen=min_seen, strict=strict)
    print(out)


@app.command()
def downstream(
    out: Annotated[Path, typer.Option(help="Folder for simulated products, maps and tables.")],
    weights: Annotated[
        list[str] | None,
        typer.Option(help="LABEL=RUN of a harmonization; LABEL=RUN,RUN averages; repeat."),
    ] = None,
    train: Annotated[int, typer.Option(min=1, max=20, help="Locations that the parcel networks learn from.")] = 8,
    test: Annotated[int, typer.Option(min=1, max=40, help="Locations that are scored.")] = 12,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Training steps of a parcel network.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulated ground.")] = 77,
) -> None:
    """NDVI over both sensors, and parcels found in harmonized Landsat-8, on simulated farmland: three tables."""
    from .downstream import Settings
    from .downstream_run import downstream as make_tables

    tables = make_tables(out, weights or [], Settings(seed=seed, train=train, test=test, steps=steps))
    print(tables.read_text(), end="")
    print(tables)


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
    from .command import reproduce_command

    reproduce_command(table, profile, data_root, out, records, check, readme, workers, gpus, dask, shard)


@bench_app.command("loader")
def bench_loader(
    quick: Annotated[bool, typer.Option("--quick", help="Few samples, small data: shows that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON record to write.")] = None,
) -> None:
    """ChipLoader against GeoTIFF data loaders, plain h5py and memcpy."""
    from .throughput import bench_loader as run_bench

    run_bench(quick=quick, out=out)


@bench_app.command("build")
def bench_build(
    quick: Annotated[bool, typer.Option("--quick", help="Small scenes, once: shows that it runs.")] = False,
    scene: Annotated[list[str] | None, typer.Option(help="alos-dswe or l8s2; both by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100, help="Samples of each contender.")] = 3,
    workdir: Annotated[Path | None, typer.Option(help="Where the scenes are written and kept, some 8 GB.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON record to write.")] = None,
) -> None:
    """A builder's shard of a scene of real size against reading alone, naive building and copying."""
    from .build_speed import bench_build as run_bench

    run_bench(quick=quick, rounds=rounds, kinds=tuple(scene or ()), out=out, workdir=workdir)


@bench_app.command("stream")
def bench_stream(
    quick: Annotated[bool, typer.Option("--quick", help="Little data, once: shows that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON record to write.")] = None,
) -> None:
    """Streaming from a hub on localhost against download-then-read, with latency and a slow line."""
    from .streaming import bench_stream as run_bench

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
Channels = Annotated[int, typer.Option(min=1, max=255, help="Bands of synthetic input; of reflectance always six.")]
Arguments = Annotated[list[str] | None, typer.Option("--arg", help="NAME=VALUE of a registered model; repeat.")]
Chips = Annotated[Path | None, typer.Option("--dataset", help="Version folder; by default the run's.")]
ChipSplit = Annotated[str, typer.Option("--split", help="Split to read, and to score each precision on.")]
Side = Annotated[int, typer.Option(min=16, max=4096, help="Side of a synthetic chip (its map), or of a scene's tiles.")]


def _bench(kind: str, target: str, arguments: list[str] | None, out: Path | None, **given) -> None:
    from ..datasets.command import parse_parameters
    from .model_bench import Request, bench_speed

    given["precisions"] = tuple(given.pop("precision") or ())
    bench_speed(
        Request(kind=kind, target=target, arguments=parse_parameters(arguments or [], lists=True), **given), out
    )


@bench_app.command("model", help="The network alone, tensors resident on the device, against the reference U-Net.")
@bench_app.command("end-to-end", help="HDF5 shards to maps in host memory, files in the page cache.")
def bench_chips(
    context: typer.Context,
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
    """One of the two figures over chips, named by the command."""
    given = {"device": device, "threads": threads, "batch": batch, "precision": precision, "compiled": compiled}
    given |= {"dataset": dataset, "split": split, "channels": channels, "size": size}
    _bench(context.info_name, model, arg, out, repeats=repeats, quick=quick, **given)


@bench_app.command("backends")
def bench_backends(
    model: Subject,
    dataset: Chips = None,
    split: ChipSplit = "val",
    channels: Channels = 2,
    size: Side = 256,
    arg: Arguments = None,
    threads: Threads = 0,
    batch: Annotated[int, typer.Option(min=1, help="Chips per call.")] = 4,
    quick: Quick = False,
    out: Record = None,
) -> None:
    """PyTorch against ONNX Runtime and OpenVINO on this CPU: speed, and how many pixels get the same class."""
    from ..datasets.command import parse_parameters
    from .backends import bench_backends as run_bench

    run_bench(
        model,
        dataset=dataset,
        split=split,
        channels=channels,
        size=size,
        arguments=parse_parameters(arg or []),
        batch=batch,
        threads=threads,
        quick=quick,
        out=out,
    )


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
