"""``tidemark export``: the same chips in other forms, so that a user can leave.

``geotiff``: one GeoTIFF per chip and array, with its CRS and transform. ``webdataset``: tar shards per split, a chip's
members under one key (NumPy arrays and JSON). ``zarr``: one Zarr 3 group per split, one chunk per chip. ``index``: the
footprints as GeoParquet and STAC, with thumbnails. Values stay as stored; scale, offset and nodata stand beside them.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .files import atomic_path, write_atomic
from .reader import Shard, open_split
from .spec import Array, Manifest, load_manifest

TAR_BYTES = 256 << 20  # a new tar shard after so many
FORMS = ("geotiff", "webdataset", "zarr", "index")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class ExportedChip:
    """One chip with its arrays as stored."""

    id: str
    split: str
    scene: str
    crs: str | None
    transform: tuple[float, ...]
    arrays: dict[str, np.ndarray]
    transforms: dict[str, tuple[float, ...]]

    def facts(self) -> dict[str, Any]:
        """What is not pixels, as JSON values."""
        placed = np.isfinite(self.transform).all()
        return {
            "chip_id": self.id,
            "split": self.split,
            "scene": self.scene,
            "crs": self.crs if placed else None,
            "transform": list(self.transform) if placed else None,
        }


def export(folder: str | Path, form: str, out: str | Path, progress: Progress | None = None) -> Path:
    """Write a data set in another form to ``<out>/<name>-<version>-<form>``; returns that folder.

    Raises:
        InputError: no such form, the output exists, or a library for it is not installed.
        ChecksumError: a chip is damaged.
    """
    writers = {"geotiff": _geotiff, "webdataset": _webdataset, "zarr": _zarr, "index": _index}
    if form not in writers:
        raise InputError(f"no form {form!r}, there is {', '.join(FORMS)}")
    manifest = load_manifest(folder)
    target = Path(out) / f"{manifest.name}-{manifest.version}-{form}"
    if target.exists() and any(target.iterdir()):
        raise InputError("is there already", where=target, hint="move it away, or choose another --out")
    target.mkdir(parents=True, exist_ok=True)
    writers[form](Path(folder), manifest, target, progress or (lambda done, total, what: None))
    write_atomic(target / "dataset.json", (Path(folder) / "dataset.json").read_bytes())
    return target


def exported_chips(folder: Path, manifest: Manifest, split: str, progress: Progress) -> Iterator[ExportedChip]:
    """The chips of a split in order, every checksum compared."""
    shards = open_split(folder, split)[1]
    total, done = sum(len(shard) for shard in shards), 0
    for shard in shards:
        scenes = [manifest.scenes[number] for number in shard.scene_index.tolist()]
        for i, chip in enumerate(shard.chip_ids):
            yield _chip(shard, i, chip, split, scenes[i], manifest)
            done += 1
            progress(done, total, chip)


def _chip(shard: Shard, i: int, chip: str, split: str, scene, manifest: Manifest) -> ExportedChip:
    arrays = {array.name: shard.read(array.name, i) for array in manifest.arrays}
    own = {array.name: tuple(shard.array_transform(array.name)[i].tolist()) for array in manifest.arrays}
    return ExportedChip(chip, split, scene.id, scene.crs, tuple(shard.transform[i].tolist()), arrays, own)


def _geotiff(folder: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    """``<split>/<array>/<chip id>.tif``; labels without pixels stand in ``<split>/labels.json``."""
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    for split in manifest.splits:
        labels = {}
        for chip in exported_chips(folder, manifest, split.name, progress):
            for array in manifest.arrays:
                values = chip.arrays[array.name]
                if values.ndim == 0:
                    labels[chip.id] = int(values)
                    continue
                path = target / split.name / array.name / f"{_file_name(chip.id)}.tif"
                with atomic_path(path) as temporary, warnings.catch_warnings():
                    warnings.simplefilter("ignore", NotGeoreferencedWarning)
                    with rasterio.open(temporary, "w", **_profile(chip, array, values)) as dataset:
                        dataset.write(values if values.ndim == 3 else values[None])
                        for number, band in enumerate(array.bands, 1):
                            dataset.set_band_description(number, band.name)
                            dataset.update_tags(number, unit=band.unit)
                        if array.bands:
                            dataset.scales = [band.scale for band in array.bands]
                            dataset.offsets = [band.offset for band in array.bands]
                        dataset.update_tags(**{k: v for k, v in chip.facts().items() if isinstance(v, str)})
        if labels:
            write_atomic(target / split.name / "labels.json", json.dumps(labels, indent=1) + "\n")


def _profile(chip: ExportedChip, array: Array, values: np.ndarray) -> dict[str, Any]:
    from rasterio import Affine
    from rasterio.crs import CRS

    profile = {
        "driver": "GTiff",
        "dtype": array.dtype,
        "count": values.shape[0] if values.ndim == 3 else 1,
        "height": values.shape[-2],
        "width": values.shape[-1],
        "compress": "deflate",
        "nodata": array.bands[0].nodata if array.bands else None,
    }
    transform = chip.transforms[array.name]
    if chip.crs and np.isfinite(transform).all():
        profile |= {"crs": CRS.from_user_input(chip.crs), "transform": Affine(*transform)}
    return profile


def _webdataset(folder: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    """``<split>-000000.tar``, …: members ``<chip id>.<array>.npy`` and ``<chip id>.json``."""
    for split in manifest.splits:
        chips = exported_chips(folder, manifest, split.name, progress)
        number, chip = 0, next(chips, None)
        while chip is not None:
            with (
                atomic_path(target / f"{split.name}-{number:06d}.tar") as temporary,
                tarfile.open(temporary, "w") as tar,
            ):
                size = 0
                while chip is not None and size < TAR_BYTES:
                    key = _file_name(chip.id).replace(".", "_")  # the format ends the key at the first dot
                    for name, values in chip.arrays.items():
                        size += _add(tar, f"{key}.{name}.npy", _npy(values))
                    size += _add(tar, f"{key}.json", json.dumps(chip.facts()).encode())
                    chip = next(chips, None)
            number += 1


def _npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return len(data)


def _zarr(folder: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    """``<split>/<array>``, one chunk per chip, and ``<split>/facts.json`` in the same order."""
    try:
        import zarr
    except ImportError:
        raise InputError("zarr is not installed", hint="pip install 'tidemark[export]'") from None
    root = zarr.open_group(target / "chips.zarr", mode="w")
    for split in manifest.splits:
        if not split.chips:
            continue
        group, facts = root.create_group(split.name), []
        made = {
            array.name: group.create_array(
                array.name,
                shape=(split.chips, *array.shape),
                chunks=(1, *array.shape) if array.shape else (split.chips,),
                dtype=array.dtype,
                attributes={"bands": [band.model_dump(mode="json") for band in array.bands], "role": array.role},
            )
            for array in manifest.arrays
        }
        for i, chip in enumerate(exported_chips(folder, manifest, split.name, progress)):
            facts.append(chip.facts())
            for name, values in chip.arrays.items():
                made[name][i] = values
        write_atomic(target / f"{split.name}.json", json.dumps(facts) + "\n")


def _index(folder: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    from .export_index import write_index

    write_index(folder, manifest, target, progress)


def _file_name(chip: str) -> str:
    """A chip id as a file's name: what a file system or a tar key takes for a separator becomes an underscore."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in chip).lstrip(".") or "_"
