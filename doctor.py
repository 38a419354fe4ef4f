"""``tidemark doctor``, ``list`` and ``info``: what is installed, what is on this disk, what a data set is."""

from __future__ import annotations

import json
import platform
import shutil
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .errors import InputError

PACKAGES = {
    "h5py": "pip install h5py",
    "hdf5plugin": "pip install hdf5plugin",
    "numcodecs": "pip install numcodecs",
    "xxhash": "pip install xxhash",
    "numpy": "pip install numpy",
    "rasterio": "pip install rasterio",
    "geopandas": "pip install geopandas",
    "torch": "pip install -c constraints.txt torch",
    "torchvision": "pip install -c constraints.txt torchvision",
    "torchgeo": "pip install -c constraints.txt torchgeo",
    "segmentation-models-pytorch": "pip install -c constraints.txt segmentation-models-pytorch",
    "lightning": "pip install -c constraints.txt lightning",
    "scikit-learn": "pip install scikit-learn",
    "huggingface_hub": "pip install huggingface_hub",
}
OPTIONAL = {
    "asf_search": "pip install 'tidemark[acquire]' (tidemark acquire alos-dswe)",
    "pystac-client": "pip install 'tidemark[acquire]' (tidemark acquire, tidemark availability)",
    "odc-stac": "pip install 'tidemark[acquire]' (tidemark acquire s1)",
    "dask": "pip install 'tidemark[cluster]' (builds on a cluster)",
    "onnxruntime": "pip install 'tidemark[onnx]' (predict --backend onnxruntime)",
    "openvino": "pip install 'tidemark[openvino]' (predict --backend openvino)",
    "pytest": "pip install 'tidemark[test]' (tests)",
    "playwright": "pip install 'tidemark[test]' (tests of the page)",
    "imagecodecs": "pip install 'tidemark[test]' (GeoTIFF side of the loader benchmark)",
}
PROGRAMS = {
    "chromium": "apt-get install chromium (tests of the page)",
    "h5dump": "apt-get install hdf5-tools (a look into shards)",
}


def diagnose(as_json: bool = False) -> int:
    """Print the state of this installation; exit code 1 when something needed is missing."""
    facts = {"python": platform.python_version(), "system": platform.platform()}
    missing = {}
    for name, remedy in (PACKAGES | OPTIONAL).items():
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = None
            missing[name] = remedy
    facts |= _libraries(missing)
    for program, remedy in PROGRAMS.items():
        facts[program] = shutil.which(program)
        if facts[program] is None:
            missing[program] = remedy
    needed = sorted(set(missing) - set(OPTIONAL) - set(PROGRAMS))
    if as_json:
        print(json.dumps({"facts": facts, "missing": missing, "ready": not needed}, indent=1))
        return 1 if needed else 0
    for name, value in facts.items():
        print(f"{name:<28} {'missing' if value is None else value}")
    for name, remedy in missing.items():
        print(f"{'needed' if name in needed else 'optional'}: {name}: {remedy}")
    print("ready" if not needed else f"not ready: {', '.join(needed)}")
    return 1 if needed else 0


def _libraries(missing: dict[str, str]) -> dict[str, str | None]:
    facts: dict[str, str | None] = {}
    try:
        import h5py
        import hdf5plugin

        facts["HDF5"] = h5py.version.hdf5_version
        facts["HDF5 filters"] = ", ".join(
            f"{name} {'yes' if h5py.h5z.filter_avail(code) else 'no'}"
            for name, code in (("deflate", h5py.h5z.FILTER_DEFLATE), ("blosc", hdf5plugin.BLOSC_ID))
        )
    except ImportError as error:
        missing["h5py"] = f"its import fails: {error}"
    try:
        import rasterio
        from rasterio.drivers import raster_driver_extensions

        facts["GDAL"] = rasterio.__gdal_version__
        drivers = set(raster_driver_extensions().values())
        facts["GDAL drivers"] = ", ".join(
            f"{d} {'yes' if d in drivers else 'no'}" for d in ("GTiff", "PNG", "JP2OpenJPEG")
        )
    except ImportError as error:
        missing["rasterio"] = f"its import fails: {error}"
    try:
        from . import _compat  # noqa: F401

        torch = import_module("torch")
        import_module("torchvision")
        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["CUDA"] = f"{torch.version.cuda}: {', '.join(devices)}" if devices else "no device"
        facts["torch threads"] = str(torch.get_num_threads())
    except (ImportError, RuntimeError) as error:
        missing["torch"] = f"its import fails: {error}"
    return facts


def data_sets(data_root: Path) -> list[tuple[Path, object]]:
    """Folders ``<root>/<name>/<version>`` with a manifest, and what loading it gave: a Manifest or a TidemarkError."""
    from .datasets.spec import MANIFEST_NAME, load_manifest
    from .errors import TidemarkError

    found = []
    for path in sorted(data_root.glob(f"*/*/{MANIFEST_NAME}")):
        try:
            found.append((path.parent, load_manifest(path.parent)))
        except TidemarkError as error:
            found.append((path.parent, error))
    return found


def inventory(data_root: Path, as_json: bool = False) -> None:
    """Print builders, data sets on this disk, models and tables."""
    from .datasets.build import list_builders
    from .datasets.spec import Manifest
    from .models import list_models

    here = []
    for folder, loaded in data_sets(data_root):
        row = {"folder": str(folder), "MB": round(sum(p.stat().st_size for p in folder.rglob("*.*")) / 1e6, 1)}
        if isinstance(loaded, Manifest):
            row |= {"title": loaded.title, "chips": {s.name: s.chips for s in loaded.splits}}
        else:
            row |= {"title": f"unreadable: {loaded}", "chips": {}}
        here.append(row)
    tables = sorted(p.stem for p in (Path(__file__).parent / "configs" / "tables").glob("*.yaml"))
    listing = {"builders": list_builders(), "data sets here": here, "models": list_models(), "tables": tables}
    if as_json:
        print(json.dumps(listing, indent=1))
        return
    print("builders (tidemark build NAME):", ", ".join(listing["builders"]))
    print(f"data sets in {data_root}:" if here else f"data sets in {data_root}: none")
    for row in here:
        chips = ", ".join(f"{name} {n}" for name, n in row["chips"].items())
        print(f"  {row['folder']}  {row['MB']} MB  {row['title']}  ({chips})")
    print("models (MODEL.NAME):", ", ".join(listing["models"]))
    print("tables (tidemark reproduce NAME):", ", ".join(tables))


def describe(folder: Path | None, schema: bool, as_json: bool) -> None:
    """Print a data set's card (or its manifest, or the manifest's JSON Schema)."""
    from .datasets.card import data_card
    from .datasets.spec import canonical_json, load_manifest, manifest_schema, manifest_sha256
    from .datasets.split_map import MAP_NAME

    if schema:
        print(json.dumps(manifest_schema(), indent=1))
        return
    if folder is None:
        raise InputError("which data set?", hint="tidemark info data/NAME/VERSION, or --schema")
    manifest = load_manifest(folder)
    if as_json:
        print(canonical_json(manifest).decode(), end="")
        return
    print(data_card(manifest).partition("---\n\n")[2])
    if (folder / MAP_NAME).is_file():
        print(f"splits on a map: {folder / MAP_NAME}")
    print(f"manifest sha256 {manifest_sha256(manifest)}")
