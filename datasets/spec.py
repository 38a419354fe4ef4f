"""The manifest (``dataset.json``): what a data set is, in pydantic models with canonical JSON.

The manifest is read from disk and from the network, so every model is strict: unknown fields, non-finite numbers,
paths that leave the data set's folder and sizes beyond the limits below are refused with the field's name.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import FormatError

FORMAT_VERSION = (1, 0)
FORMAT_PATTERN = r"^\d{1,6}\.\d{1,6}$"
MANIFEST_NAME = "dataset.json"
MAX_MANIFEST_BYTES = 256 << 20
MAX_CHIP_BYTES = 256 << 20  # one chip of one array, decoded
DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
RESERVED = frozenset({"chip_id", "scene", "window", "transform", "meta"})  # beside checksum_meta


def _safe_path(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not path or "\\" in path or ":" in path or "\0" in path or path.startswith("/") or ".." in parts:
        raise ValueError("must be a relative path inside the data set, with '/' and without '..'")
    return path


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
ArrayName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
SplitName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
SceneId = Annotated[str, Field(min_length=1, max_length=200)]
Version = Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")]
Codec = Literal["blosc", "blosc-hc", "gzip", "none"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SafePath = Annotated[str, Field(max_length=500), AfterValidator(_safe_path)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Strict(BaseModel):
    """Frozen, without unknown fields and without NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Band(Strict):
    """One band: physical value = stored * scale + offset, in ``unit``; ``nodata`` is a stored value."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    sensor: str = ""
    unit: str = "1"
    scale: float = 1.0
    offset: float = 0.0
    nodata: float | None = None
    wavelength_um: float | None = None


class ClassDef(Strict):
    """One label class with its stored id and the colour (``#rrggbb``) of every plot and page."""

    id: Annotated[int, Field(ge=0, le=254)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]


# The classes of every water and every sea-ice data set: one colour for one thing on all pages.
WATER_CLASSES = (ClassDef(id=0, name="not water", color="#d9cfa6"), ClassDef(id=1, name="water", color="#1f6fb4"))
ICE_CLASSES = (
    ClassDef(id=0, name="water", color="#1f6fb4"),
    ClassDef(id=1, name="ice", color="#8fd3e8"),
    ClassDef(id=2, name="land", color="#8c6d3f"),
)


class Task(Strict):
    """What is to be predicted. ``ignore_index`` marks pixels without a label."""

    kind: Literal["segmentation", "classification", "regression"]
    classes: tuple[ClassDef, ...] = ()
    ignore_index: Annotated[int, Field(ge=0, le=255)] = 255

    @property
    def binary(self) -> bool:
        """Two classes, 0 = background and 1 = foreground: one logit."""
        return self.kind == "segmentation" and [c.id for c in self.classes] == [0, 1]

    @model_validator(mode="after")
    def _classes_fit(self) -> Task:
        ids = [c.id for c in self.classes]
        if self.kind != "regression" and ids != list(range(len(ids))) or self.kind != "regression" and len(ids) < 2:
            raise ValueError("classes must have the ids 0, 1, … in order, at least two")
        return self


def holds(dtype: str, value: float) -> bool:
    """Whether an array of this dtype can hold this value: what it cannot hold would wrap onto another one."""
    if np.dtype(dtype).kind not in "iu":
        return True
    return float(value).is_integer() and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


class Array(Strict):
    """One array of every shard; ``shape`` is that of one chip: (C,H,W), (H,W) or () for a label per chip."""

    name: ArrayName
    dtype: Literal[DTYPES]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=65536)], ...], Field(max_length=3)]
    role: Literal["image", "context", "mask", "label", "target", "valid"]
    bands: tuple[Band, ...] = ()

    @property
    def chip_bytes(self) -> int:
        """Decoded bytes of one chip."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @model_validator(mode="after")
    def _consistent(self) -> Array:
        rank = {"mask": 2, "label": 0, "valid": 2}.get(self.role, 3)
        if len(self.shape) != rank:
            raise ValueError(f"array {self.name!r}: role {self.role} needs {rank} dimensions, found {len(self.shape)}")
        if rank == 3 and len(self.bands) != self.shape[0]:
            raise ValueError(f"array {self.name!r}: {self.shape[0]} channels but {len(self.bands)} bands")
        if len({b.name for b in self.bands}) != len(self.bands):
            raise ValueError(f"array {self.name!r}: band names repeat")
        for band in self.bands:
            if band.nodata is not None and not holds(self.dtype, band.nodata):
                raise ValueError(
                    f"array {self.name!r}: {self.dtype} cannot hold nodata {band.nodata:g} of {band.name!r}"
                )
        if self.role in ("mask", "label", "valid") and self.dtype != "uint8":
            raise ValueError(f"array {self.name!r}: role {self.role} is stored as uint8, found {self.dtype}")
        if self.name in RESERVED or self.name.startswith(("checksum_", "transform_")):
            raise ValueError(f"array name {self.name!r} is reserved")
        if self.chip_bytes > MAX_CHIP_BYTES:
            raise ValueError(f"array {self.name!r}: a chip of {self.chip_bytes} bytes is over {MAX_CHIP_BYTES}")
        return self


class BandStatistics(Strict):
    """Over valid pixels of the training split, in the band's physical unit; ``pixels`` may be 0, then all are None."""

    array: ArrayName
    band: str
    pixels: Count
    mean: float | None
    std: float | None
    min: float | None
    max: float | None
    p02: float | None
    p98: float | None


class Split(Strict):
    """Size of one split; ``classes`` counts label pixels (segmentation) or chips (classification) by class name."""

    name: SplitName
    chips: Count
    scenes: Count
    classes: dict[str, Count] = {}
    ignored: Count = 0


class SourceFile(Strict):
    """A source file, or (``files`` > 1) a folder: then sha256 is that of its sorted ``sha256sum`` listing."""

    path: Annotated[str, Field(max_length=500)]
    bytes: Count
    sha256: Sha256
    files: Annotated[int, Field(ge=1)] = 1


class Scene(Strict):
    """The unit of splits and of inference. ``bounds`` are WGS84 west, south, east, north in degrees."""

    id: SceneId
    split: SplitName
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?$")] | None = None
    crs: Annotated[str, Field(max_length=20000)] | None = None
    bounds: tuple[float, float, float, float] | None = None
    sources: tuple[SourceFile, ...] = ()


class SkippedScene(Strict):
    """A scene that the builder could not use, and why."""

    id: SceneId
    reason: str


class ShardEntry(Strict):
    """One HDF5 file of one split with its sidecar index (same path, suffix ``.idx``)."""

    path: SafePath
    split: SplitName
    chips: Annotated[int, Field(ge=1, le=2**31)]
    bytes: Count
    sha256: Sha256
    index_bytes: Count
    index_sha256: Sha256

    @property
    def index_path(self) -> str:
        """Path of the sidecar."""
        return self.path.removesuffix(".h5") + ".idx"


class BuilderInfo(Strict):
    """Which builder made it, and from which parameters (JSON values)."""

    name: str
    version: str
    parameters: dict[str, Any] = {}


class Header(Strict):
    """What a builder states before any pixel is read."""

    name: Name
    version: Version
    title: str
    description: str
    licence: str | None
    citation: str = ""
    homepage: str = ""
    provenance: str
    known_label_defects: str
    simulated: bool = False
    guard_distance_m: float | None = None
    task: Task
    arrays: tuple[Array, ...]
    builder: BuilderInfo

    @model_validator(mode="after")
    def _arrays_fit_task(self) -> Header:
        names = [a.name for a in self.arrays]
        if len(set(names)) != len(names):
            raise ValueError("array names repeat")
        wanted = {"segmentation": "mask", "classification": "label", "regression": "target"}[self.task.kind]
        if sum(a.role == wanted for a in self.arrays) != 1 or not any(a.role == "image" for a in self.arrays):
            raise ValueError(f"a {self.task.kind} data set needs an image and exactly one {wanted} array")
        if sum(a.role == "valid" for a in self.arrays) > 1:
            raise ValueError("one array at most may have the role valid")
        return self

    def array(self, name: str) -> Array:
        """The declaration of one array; FormatError names the valid ones."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise FormatError(f"no array {name!r}, there is {', '.join(a.name for a in self.arrays)}", where=self.name)

    @property
    def label_array(self) -> Array:
        """The array that is to be predicted."""
        wanted = {"segmentation": "mask", "classification": "label", "regression": "target"}[self.task.kind]
        return next(a for a in self.arrays if a.role == wanted)


class Manifest(Header):
    """``dataset.json``: the header and everything that the build computed."""

    format_version: Annotated[str, Field(pattern=FORMAT_PATTERN)]
    codec: Codec
    content_sha256: Sha256
    statistics: tuple[BandStatistics, ...]
    splits: tuple[Split, ...]
    scenes: tuple[Scene, ...]
    skipped: tuple[SkippedScene, ...] = ()
    shards: tuple[ShardEntry, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        splits = {s.name for s in self.splits}
        for what, names in (("scenes", {s.split for s in self.scenes}), ("shards", {s.split for s in self.shards})):
            if not names <= splits:
                raise ValueError(f"{what} name unknown splits {sorted(names - splits)}")
        if len({s.id for s in self.scenes}) != len(self.scenes):
            raise ValueError("scene ids repeat")
        if len({s.path for s in self.shards}) != len(self.shards):
            raise ValueError("shard paths repeat")
        for shard in self.shards:
            if not shard.path.startswith(f"{shard.split}/") or not shard.path.endswith(".h5"):
                raise ValueError(f"shard path {shard.path!r} is not <split>/<key>.h5")
        for split in self.splits:
            chips = sum(s.chips for s in self.shards if s.split == split.name)
            if chips != split.chips:
                raise ValueError(f"split {split.name}: {split.chips} chips stated, {chips} in its shards")
        return self

    def split_shards(self, split: str) -> list[ShardEntry]:
        """Shards of one split in manifest order; FormatError names the valid splits."""
        if split not in {s.name for s in self.splits}:
            raise FormatError(f"no split {split!r}, there is {', '.join(s.name for s in self.splits)}", where=self.name)
        return [s for s in self.shards if s.split == split]


def canonical_json(value: Mapping[str, Any] | BaseModel) -> bytes:
    """Sorted keys, one-space indent, UTF-8, one newline at the end, no NaN: the same value gives the same bytes."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return (json.dumps(plain, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def manifest_sha256(manifest: Manifest) -> str:
    """The digest that pins the files: sha256 of the canonical JSON, which is what lies on disk."""
    return hashlib.sha256(canonical_json(manifest)).hexdigest()


def load_manifest(folder: str | Path) -> Manifest:
    """Read and check ``<folder>/dataset.json``. Raises FormatError with the JSON path of the first fault."""
    path = Path(folder) / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise FormatError(f"{path.stat().st_size} bytes, over the limit of {MAX_MANIFEST_BYTES}", where=path)
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FormatError("no data set here: the manifest is missing", where=path, hint="build or pull it") from None
    except OSError as error:
        raise FormatError(f"no manifest to read ({error.strerror})", where=path, hint="give the folder") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None
    return parse_manifest(raw, where=path)


def parse_manifest(raw: Any, where: object = None) -> Manifest:
    """Validate a decoded manifest; a newer format version is reported before anything else."""
    version = str(raw.get("format_version", "")) if isinstance(raw, dict) else ""
    major, _, minor = version.partition(".")
    if re.fullmatch(FORMAT_PATTERN, version) and (int(major), int(minor)) > FORMAT_VERSION:
        own = ".".join(map(str, FORMAT_VERSION))
        raise FormatError(
            f"written by a newer version: needs format >= {version}, this one reads {own}",
            where=where,
            hint="upgrade tidemark",
        )
    try:
        manifest = Manifest.model_validate(raw)
        canonical_json(manifest)  # half a surrogate pair or endless nesting can be read, but not written again
        return manifest
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=where) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a manifest ({error})", where=where) from None


def describe_validation(error: ValidationError) -> str:
    """The first fault of a pydantic error as ``/json/pointer: what``, with the number of further ones."""
    first, *others = error.errors(include_url=False)
    pointer = "/" + "/".join(str(part) for part in first["loc"])
    return f"{pointer}: {first['msg']}" + (f" (and {len(others)} more)" if others else "")


def manifest_schema() -> dict[str, Any]:
    """JSON Schema of ``dataset.json``."""
    return Manifest.model_json_schema()
