"""The YAML specification of a custom data set (``tidemark build custom --spec my.yaml``), checked strictly.

A specification looks like this (``simulate`` writes one; everything not marked optional is required)::

    name: my-lakes
    version: 1.0.0
    title: Lakes of my region
    description: Sentinel-1 scenes with hand-drawn lakes.
    licence: CC-BY-4.0                  # or null where none is stated
    provenance: Downloaded from …, drawn by …
    known_label_defects: Ponds below 0.1 ha are missing.
    citation: ""                        # optional, as are homepage and simulated (false)
    folder: scenes                      # optional: where the files lie, relative to this file
    images:
      pattern: "{id}_{date}.tif"        # {id}; optional {date}, {group} (never parted) and {split}
      format: GTiff                     # GTiff or PNG
      dtype: float32                    # what the files hold; another one makes a scene unusable
      georeferenced: true               # optional: by default true for GTiff, false for PNG
    bands:                              # in stored order; `index` (from 1) where the file orders them otherwise
      - {name: VV, sensor: Sentinel-1, unit: dB, scale: 1, offset: 0, nodata: 0}
    classes:                            # ids 0, 1, … in this order; `values`: what the labels hold, by default the id
      - {name: not water, color: "#d9cfa6"}
      - {name: water, color: "#1f6fb4"}
    labels:
      kind: mask                        # mask or polygons
      pattern: "{id}_mask.tif"          # with the placeholders of the images
      format: GTiff                     # mask: GTiff or PNG
      ignore: [255]                     # mask: values without a label; optional
      # polygons: inside: water (or attribute: <field>, with the classes' values), outside: not water (or ignore), layer
    chips:
      size: 256
      min_valid_share: 0.1              # optional: least share of labelled pixels with data
      drop_blank: true                  # optional: drop chips whose every band is constant
    splits:                             # one of
      scenes: {train: [a, b], val: [c], test: [d]}
      # leave_out: [e]                  # scenes in no split, with `scenes` only
      # fractions: {train: 0.6, val: 0.2, test: 0.2}      with seed: 0
      # blocks: {size_m: 5000, guard_m: 500}              with fractions and seed; one projected CRS for all
      # nothing where the image pattern has {split}
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, StrictInt, StrictStr, ValidationError, model_validator

from ..configs import read_yaml
from ..errors import ConfigError
from .spec import ClassDef, Name, SafePath, SplitName, Strict, Task, Version, describe_validation, holds

MAX_BYTES = 1 << 20
PLACEHOLDERS = {
    "id": r"[^/]+?",
    "date": r"\d{4}-\d{2}-\d{2}|\d{8}",
    "group": r"[^/]+?",
    "split": r"[a-z][a-z0-9_]{0,31}",
}
Text = Annotated[str, Field(min_length=1, max_length=4000)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Images(Strict):
    """Which files are scenes."""

    pattern: SafePath
    format: Literal["GTiff", "PNG"] = "GTiff"
    dtype: Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
    georeferenced: bool | None = None

    @property
    def need_crs(self) -> bool:
        """Whether a scene without CRS, or with a rotated transform, is unusable."""
        return self.format == "GTiff" if self.georeferenced is None else self.georeferenced

    @model_validator(mode="after")
    def _placeholders(self) -> Images:
        found = placeholders(self.pattern)
        if "id" not in found or len(set(found)) != len(found):
            raise ValueError("the pattern needs {id} once, and every other placeholder at most once")
        return self


class BandSpec(Strict):
    """One band; ``index`` counts from 1 in the file and is the position in the list where it is not given."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    index: Annotated[int, Field(ge=1, le=10000)] | None = None
    sensor: str = ""
    unit: str = "1"
    scale: Annotated[float, Field(ge=-1e30, le=1e30)] = 1.0
    offset: Annotated[float, Field(ge=-1e30, le=1e30)] = 0.0
    nodata: float | None = None
    wavelength_um: float | None = None


class ClassSpec(Strict):
    """One class; ``values`` are what the labels hold for it (by default its id)."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    color: Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
    values: Annotated[tuple[StrictInt | StrictStr, ...], Field(min_length=1)] | None = None


class Labels(Strict):
    """Where the labels of a scene are."""

    kind: Literal["mask", "polygons"]
    pattern: SafePath
    format: Literal["GTiff", "PNG"] = "GTiff"
    ignore: tuple[int, ...] = ()
    layer: str | None = None
    inside: str | None = None
    attribute: str | None = None
    outside: str | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> Labels:
        foreign = ("layer", "inside", "attribute", "outside") if self.kind == "mask" else ("format", "ignore")
        if given := [name for name in foreign if name in self.model_fields_set]:
            raise ValueError(f"{given[0]!r} does not belong to labels of the kind {self.kind!r}")
        if self.kind == "polygons" and ((self.inside is None) == (self.attribute is None) or self.outside is None):
            raise ValueError("polygons need `outside` (a class or ignore) and either `inside` (a class) or `attribute`")
        return self


class Chips(Strict):
    """How scenes are cut."""

    size: Annotated[int, Field(ge=8, le=8192)]
    min_valid_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    drop_blank: bool = True


class Blocks(Strict):
    """Squares of ground, in metres of the scenes' common projected CRS."""

    size_m: Annotated[float, Field(gt=0)]
    guard_m: Annotated[float, Field(gt=0)]


class Splits(Strict):
    """Which scene or block goes into which split."""

    scenes: dict[SplitName, tuple[str, ...]] | None = None
    leave_out: tuple[str, ...] = ()
    fractions: dict[SplitName, Fraction] | None = None
    seed: Seed = 0
    blocks: Blocks | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Splits:
        if (self.scenes is None) == (self.fractions is None):
            raise ValueError("name either `scenes` (lists of ids) or `fractions`")
        if self.scenes is None and self.leave_out:
            raise ValueError("`leave_out` goes with `scenes`")
        if self.scenes is not None and (self.blocks is not None or "seed" in self.model_fields_set):
            raise ValueError("`blocks` and `seed` go with `fractions`")
        if self.fractions is not None and abs(sum(self.fractions.values()) - 1) > 1e-6:
            raise ValueError(f"fractions must sum to 1, found {sum(self.fractions.values()):g}")
        listed = [i for ids in (self.scenes or {}).values() for i in ids] + list(self.leave_out)
        if repeated := sorted({i for i in listed if listed.count(i) > 1}):
            raise ValueError(f"scene {repeated[0]!r} is listed twice")
        return self


class BuildSpec(Strict):
    """The whole specification."""

    name: Name
    version: Version
    title: Text
    description: Text
    licence: str | None
    provenance: Text
    known_label_defects: Text
    citation: str = ""
    homepage: str = ""
    simulated: bool = False
    folder: SafePath | None = None
    images: Images
    bands: Annotated[tuple[BandSpec, ...], Field(min_length=1, max_length=1000)]
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=2, max_length=250)]
    labels: Labels
    chips: Chips
    splits: Splits | None = None

    @property
    def band_indexes(self) -> list[int]:
        """Bands of the file, from 1, in stored order."""
        return [band.index or at for at, band in enumerate(self.bands, start=1)]

    @property
    def task(self) -> Task:
        """What is to be predicted."""
        classes = tuple(ClassDef(id=at, name=c.name, color=c.color) for at, c in enumerate(self.classes))
        return Task(kind="segmentation", classes=classes)

    @model_validator(mode="after")
    def _fits_together(self) -> BuildSpec:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names) or "ignore" in names:
            raise ValueError("class names must differ, and none may be `ignore`")
        for key in ("inside", "outside"):
            name = getattr(self.labels, key)
            if name is not None and name not in names and not (key == "outside" and name == "ignore"):
                raise ValueError(f"labels/{key}: no class {name!r}, there is {', '.join(names)}")
        values = [v for at, c in enumerate(self.classes) for v in ((at,) if c.values is None else c.values)]
        values += self.labels.ignore
        if len({str(v) for v in values}) != len(values):
            raise ValueError("a label value belongs to two classes (or to a class and to ignore)")
        if self.labels.kind == "mask" and not all(isinstance(v, int) for v in values):
            raise ValueError("the classes' values must be whole numbers where labels are masks")
        for band in self.bands:
            if band.nodata is not None and not holds(self.images.dtype, band.nodata):
                raise ValueError(f"bands: {self.images.dtype} cannot hold nodata {band.nodata:g} of {band.name!r}")
        if unknown := set(placeholders(self.labels.pattern)) - set(placeholders(self.images.pattern)):
            raise ValueError(f"labels/pattern: the images' pattern has no {{{sorted(unknown)[0]}}}")
        if ("split" in placeholders(self.images.pattern)) == (self.splits is not None):
            raise ValueError("splits: name a rule, or give the images' pattern a {split} (not both)")
        return self


def load_spec(path: str | Path) -> BuildSpec:
    """Read and check a specification. Raises ConfigError: what is wrong, at which key, and the nearest valid name."""
    raw = read_yaml(path, max_bytes=MAX_BYTES)
    try:
        return BuildSpec.model_validate(raw)
    except ValidationError as error:
        unknown = next((e for e in error.errors(include_url=False) if e["type"] == "extra_forbidden"), None)
        if unknown is None:
            raise ConfigError(describe_validation(error), where=path, hint=_hint(error)) from None
        *parents, key = unknown["loc"]
        known = list(_model_at(parents).model_fields)
        close = difflib.get_close_matches(str(key), known, n=1, cutoff=0)
        pointer = "/" + "/".join(map(str, unknown["loc"]))
        raise ConfigError(f"{pointer}: unknown key {key!r}", where=path, hint=f"did you mean {close[0]!r}?") from None


def _hint(error: ValidationError) -> str | None:
    missing = [str(e["loc"][-1]) for e in error.errors(include_url=False) if e["type"] == "missing"]
    return f"missing: {', '.join(missing)}" if missing else None


def _model_at(location: list[Any]) -> type[BaseModel]:
    """The model that an error's location (without its last part) points into."""
    model: type[BaseModel] = BuildSpec
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _inner_model(model.model_fields[part].annotation) or model
    return model


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _inner_model(inner))), None)


def placeholders(pattern: str) -> list[str]:
    """Names between braces, in order. Raises ValueError for unknown ones and stray braces."""
    found = re.findall(r"\{([^{}]*)\}", pattern)
    if unknown := [name for name in found if name not in PLACEHOLDERS]:
        raise ValueError(f"no placeholder {{{unknown[0]}}}, there is " + ", ".join(f"{{{p}}}" for p in PLACEHOLDERS))
    if re.search(r"[{}]", re.sub(r"\{[^{}]*\}", "", pattern)):
        raise ValueError(f"stray brace in {pattern!r}")
    return found


def pattern_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression with one named group per placeholder."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    return re.compile("".join(f"(?P<{p}>{PLACEHOLDERS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts)))
