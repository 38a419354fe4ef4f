"""Commands on models; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Overrides = Annotated[list[str] | None, typer.Argument(help="KEY VALUE pairs, such as TRAIN.EPOCHS 5.")]


@app.command(context_settings={"ignore_unknown_options": True})
def train(
    config: Annotated[str, typer.Argument(help="A recipe, such as configs/ombria/unet.yaml.")],
    overrides: Overrides = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the whole configuration.")] = False,
) -> None:
    """Train a model (or fit a trivial row) by a recipe."""
    from ..configs import dump, load_config

    cfg = load_config(config, overrides or [])
    if print_config:
        print(dump(cfg))
        return
    from .session import process_rank
    from .train import train as run_training

    folder = run_training(cfg)
    if process_rank(cfg.TRAIN.DEVICES * cfg.TRAIN.NODES) == 0:
        print(folder)


@app.command()
def predict(
    scenes: Annotated[
        list[Path],
        typer.Argument(
            help="A GeoTIFF; two of both orbits; a folder of ALOS or Landsat-8 products. More with a folder as --out."
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Folder of weights, or a run's; more for tiles where the first lacks data, of reflectance to average."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="GeoTIFF to write (water.tif or reflectance.tif), or a folder for many.")
    ] = None,
    overlap: Annotated[
        float | None, typer.Option(help="Share of a tile shared with its neighbour (0.5; Landsat-8 0.25; patches 0).")
    ] = None,
    tile: Annotated[int | None, typer.Option(help="Tile size in pixels (256; patches 64).")] = None,
    blend: Annotated[str, typer.Option(help="hann, crop, or published (as GMNet's authors).")] = "hann",
    bands: Annotated[str, typer.Option(help="Names of the file's bands, such as vv_asc,vh_asc.")] = "",
    polygons: Annotated[Path | None, typer.Option(help="GeoPackage for the classes as polygons, or a folder.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    backend: Annotated[
        str | None, typer.Option(help="torch, or on a CPU onnxruntime or openvino, which are faster.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16.")] = None,
    despeckle: Annotated[float | None, typer.Option(help="ALOS: smoothing that the data set was built with.")] = None,
    method: Annotated[str | None, typer.Option(help="Landsat-8, for weights: nearest, bilinear, bicubic.")] = None,
    pan: Annotated[Path | None, typer.Option(help="Landsat-8: folder of the Level-1 products.")] = None,
    uncertainty: Annotated[bool, typer.Option("--uncertainty", help="Landsat-8: a raster of sigma too.")] = False,
    consistent: Annotated[bool, typer.Option("--consistent", help="Landsat-8: hold its pixels' means.")] = False,
    mask_clouds: Annotated[bool, typer.Option("--mask-clouds", help="Landsat-8: no data under clouds.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first scene that fails.")] = False,
) -> None:
    """Map whole scenes as Cloud Optimized GeoTIFF: classes and probability on each scene's grid; of Landsat-8
    reflectance on Sentinel-2's."""
    from .predict_command import predict_command

    landsat = {"method": method, "pan": pan, "uncertainty": uncertainty, "consistent": consistent}
    maps = {"bands": [name.strip() for name in bands.split(",") if name], "polygons": polygons, "despeckle": despeckle}
    maps |= {"backend": backend, "precision": precision}
    common = {"overlap": overlap, "tile": tile, "blend": blend, "device": device, "strict": strict}
    for path in predict_command(scenes, weights or [], out, common, maps, landsat | {"mask_clouds": mask_clouds}):
        print(path)


@app.command("import-weights")
def import_weights(
    model: Annotated[str, typer.Argument(help="gmnet or srunet.")],
    file: Annotated[Path, typer.Argument(help="The released checkpoint (.pth, .safetensors).")],
    out: Annotated[Path, typer.Option(help="Folder for the weights.")],
    orbit: Annotated[str | None, typer.Option(help="gmnet: ascending, descending or both.")] = None,
) -> None:
    """Convert a released checkpoint to a folder of weights; nothing in it is executed."""
    from .import_weights import import_weights as convert

    found = convert(model, file, out, orbit=orbit)
    for key in found.unused:
        print(f"unused {key}")
    rest = f"{found.unused_parameters} more in {len(found.unused)} unused tensors"
    print(f"{found.folder}: {found.parameters} parameters; {rest}")


@app.command("push-model")
def push_model(
    run: Annotated[Path, typer.Argument(help="A run folder or a folder of weights.")],
    repo: Annotated[str, typer.Option(help="Repository on the Hugging Face Hub, ORG/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, send nothing.")] = False,
    tag: Annotated[str | None, typer.Option(help="Tag to set on the commit.")] = None,
) -> None:
    """Publish weights with their card."""
    from .hub import push_model as push_weights

    done = push_weights(run, repo, private=private, dry_run=dry_run, tag=tag)
    print(f"{done.repo}: {', '.join(done.files)}, " + (f"commit {done.commit}" if done.commit else "not sent"))


@app.command("pull-model")
def pull_model(
    source: Annotated[str, typer.Argument(help="ORG/NAME of the Hugging Face Hub.")],
    out: Annotated[Path, typer.Option(help="Folder for its folder.")] = Path("models-pulled"),
    revision: Annotated[str | None, typer.Option(help="Tag, branch or commit.")] = None,
) -> None:
    """Download weights; they are verified and loaded once."""
    from .hub import pull_model as pull_weights

    print(pull_weights(source, out, revision))
