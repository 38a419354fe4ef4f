"""What a result record is made of: the strict models of its figures, units, references, speed and provenance."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, model_validator

from ..datasets.spec import Count, Name, SceneId, Sha256, SplitName, Strict, Version

BandName = Annotated[str, Field(min_length=1, max_length=64)]
Words = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=20_000)]
MetricKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}(:.{1,64})?$")]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Levels = Annotated[tuple[Count, ...], Field(min_length=256, max_length=256)]


def small_json(arguments: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(arguments, allow_nan=False)) > 10_000:
        raise ValueError("more than 10 000 characters of arguments")
    return arguments


class Interval(Strict):
    """95 % confidence interval and how it was computed (``bootstrap`` or ``jackknife-t``)."""

    low: float
    high: float
    method: Literal["bootstrap", "jackknife-t"]

    @model_validator(mode="after")
    def _ordered(self) -> Interval:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class Metric(Strict):
    """One figure; ``value`` is None where it is not defined or was not measured, never 0."""

    value: float | None
    interval: Interval | None = None


class Unit(Strict):
    """One unit of inference (scene, event, block, location): what its scores are computed from.

    ``confusion`` has the truth in rows, the prediction in columns; ``pixels`` is the number of valid pixels (patches,
    for classification); ``counts`` holds the further integers that pool by adding. A harmonization's unit has no
    confusion but ``sums``: float64, by name, one value per band where it is a band's (see ``reflectance``).
    """

    id: SceneId
    confusion: Annotated[tuple[tuple[Count, ...], ...], Field(max_length=255)] = ()
    pixels: Count
    counts: Annotated[dict[MetricKey, Count], Field(max_length=16)] = {}
    sums: Annotated[dict[MetricKey, Annotated[tuple[float, ...], Field(max_length=255)]], Field(max_length=32)] = {}
    scores: Annotated[dict[MetricKey, float | None], Field(max_length=1000)]

    @model_validator(mode="after")
    def _adds_up(self) -> Unit:
        if bool(self.confusion) == bool(self.sums):
            raise ValueError("a unit has either a confusion matrix or sums")
        if self.counts.get("abstained", 0) > self.pixels:
            raise ValueError(f"{self.counts['abstained']} of {self.pixels} pixels without an answer")
        if self.sums:
            return self
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("the confusion matrix is not square")
        if sum(map(sum, self.confusion)) != self.pixels:
            raise ValueError(f"{self.pixels} pixels stated, {sum(map(sum, self.confusion))} in the confusion matrix")
        return self


class Histogram(Strict):
    """Answers by stored probability (round(255 p), 256 levels): how many were wrong and how many right.

    For the calibration of binary maps: how many pixels were not, and how many were of class 1.
    """

    missed: Levels
    hit: Levels


class DatasetRef(Strict):
    """Which data, split and files were scored."""

    name: Name
    version: Version
    title: Words
    content_sha256: Sha256
    manifest_sha256: Sha256
    simulated: bool
    licence: Words | None
    split: SplitName


class ModelRef(Strict):
    """Which model; ``trained`` is False for the trivial rows that learn nothing, ``label`` is its name in tables."""

    name: Name
    arguments: Annotated[dict[Words, JsonValue], AfterValidator(small_json)] = {}
    parameters: Count
    weights_sha256: Sha256 | None
    trained: bool
    label: Annotated[str, Field(min_length=1, max_length=100)]


class Latency(Strict):
    """Milliseconds from one chip to its result at batch 1, over all processes: percentiles of ``samples`` runs."""

    p50_ms: Positive
    p90_ms: Positive
    p99_ms: Positive
    samples: Annotated[int, Field(ge=1, le=2**31)]


class Ratio(Strict):
    """A rate divided by that of the reference model, ``unet`` with ResNet-18 in fp32, in turns in one process.

    It reads the same chips in the same batches, so that ratios from different devices can be set side by side.
    """

    median: Positive
    low: Positive
    high: Positive


class Speed(Strict):
    """Throughput of one of PROTOCOL's figures: median over fresh processes (or timed spans), and their range.

    ``kind`` says which figure, and figures of different kinds are never compared: ``model`` (tensors resident on the
    device), ``end-to-end`` (HDF5 shards to class maps in host memory, files in the page cache), ``scene`` (GeoTIFF to
    GeoTIFF; a chip is a tile, but pixels and ground count once however often tiles overlap), ``loader`` (HDF5 to host
    memory). None: not measured, or (km²) no georeference.
    """

    chips_per_s: Positive
    mpx_per_s: Positive
    chips_per_s_range: tuple[Positive, Positive] | None = None
    device: Words
    threads: Annotated[int, Field(ge=1, le=65536)]
    precision: Annotated[str, Field(max_length=32)]
    batch: Annotated[int, Field(ge=1, le=2**20)]
    kind: Literal["model", "end-to-end", "scene", "loader"] = "end-to-end"
    processes: Annotated[int, Field(ge=1, le=1000)] = 1
    km2_per_s: Positive | None = None
    latency: Latency | None = None
    peak_memory_bytes: Count | None = None
    parameters: Count | None = None
    gflops_per_chip: Positive | None = None
    reference_ratio: Ratio | None = None
    driver: Words | None = None
    cuda: Words | None = None
    torch: Words | None = None


class Harness(Strict):
    """The code that scored: package version, git commit and whether the tree had changes (None: not a checkout)."""

    version: Annotated[str, Field(max_length=64)]
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")] | None = None
    dirty: bool | None = None
