"""The result record (``result.json``): one model, one seed, one split, with the integers behind every figure.

Records come from strangers too, so the models are strict: unknown fields, non-finite numbers, long texts, names that
could leave a folder and integers that contradict each other are refused with a JSON pointer to the fault.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from ..datasets.files import write_atomic
from ..datasets.spec import (
    ClassDef,
    Count,
    Name,
    SceneId,
    Sha256,
    SplitName,
    Strict,
    Version,
    canonical_json,
    describe_validation,
)
from ..errors import FormatError

SCHEMA_VERSION = (1, 0)
RESULT_NAME = "result.json"
MAX_RESULT_BYTES = 32 << 20
MAX_UNITS = 100_000
HEADLINE = {"binary-segmentation": "iou", "segmentation": "mean_iou", "classification": "macro_f1"}

Kind = Literal["binary-segmentation", "segmentation", "classification"]
Words = Annotated[str, Field(max_length=500)]
Text = Annotated[str, Field(max_length=20_000)]
MetricKey = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}(:.{1,64})?$")]
Positive = Annotated[float, Field(gt=0)]


def _small(arguments: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(arguments)) > 10_000:
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
    """One unit of inference (scene, event, block): rows of ``confusion`` are the truth, columns the prediction.

    ``pixels`` is the number of valid pixels (patches, for classification); ``counts`` holds the further integers that
    pool by adding: ``boundary_*`` of the boundary F1.
    """

    id: SceneId
    confusion: Annotated[tuple[tuple[Count, ...], ...], Field(min_length=2, max_length=255)]
    pixels: Count
    counts: Annotated[dict[MetricKey, Count], Field(max_length=16)] = {}
    scores: Annotated[dict[MetricKey, float | None], Field(max_length=1000)]

    @model_validator(mode="after")
    def _adds_up(self) -> Unit:
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("the confusion matrix is not square")
        if sum(map(sum, self.confusion)) != self.pixels:
            raise ValueError(f"{self.pixels} pixels stated, {sum(map(sum, self.confusion))} in the confusion matrix")
        return self


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
    arguments: Annotated[dict[Words, JsonValue], AfterValidator(_small)] = {}
    parameters: Count
    weights_sha256: Sha256 | None
    trained: bool
    label: Annotated[str, Field(min_length=1, max_length=100)]


class Speed(Strict):
    """End-to-end throughput (HDF5 shards to class maps in host memory): median, and range over the repeats."""

    chips_per_s: Positive
    mpx_per_s: Positive
    chips_per_s_range: tuple[Positive, Positive] | None = None
    device: Words
    threads: Annotated[int, Field(ge=1, le=65536)]
    precision: Annotated[str, Field(max_length=32)]
    batch: Annotated[int, Field(ge=1, le=2**20)]


class Harness(Strict):
    """The code that scored: package version, git commit and whether the tree had changes (None: not a checkout)."""

    version: Annotated[str, Field(max_length=64)]
    git_commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")] | None = None
    dirty: bool | None = None


class Result(Strict):
    """``result.json``. ``id`` is the sha256 of everything else in canonical JSON.

    ``config`` is the recipe as YAML, ``config_hash`` its digest without seed and places (None: foreign predictions):
    records that share it are the seeds of one row. ``command`` and ``device`` tell how the predictions were made.
    """

    schema_version: Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")] = ".".join(map(str, SCHEMA_VERSION))
    id: Sha256
    task: Kind
    dataset: DatasetRef
    model: ModelRef
    seed: Annotated[int, Field(ge=0, le=2**32)] | None
    classes: Annotated[tuple[ClassDef, ...], Field(min_length=2, max_length=255)]
    metrics: Annotated[dict[MetricKey, Metric], Field(max_length=1000)]
    units: Annotated[tuple[Unit, ...], Field(min_length=1, max_length=MAX_UNITS)]
    chips: Annotated[int, Field(ge=1, le=2**53)]
    speed: Speed | None = None
    harness: Harness
    packages: Annotated[dict[Words, Words], Field(max_length=100)] = {}
    command: Annotated[str, Field(max_length=4000)] = ""
    device: Words = ""
    config: Text = ""
    config_hash: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    predictions_sha256: Sha256
    confusion_sha256: Sha256 | None = None
    note: Annotated[str, Field(max_length=2000)] = ""

    @property
    def headline(self) -> Metric:
        """The figure that the table is ordered by."""
        return self.metrics[HEADLINE[self.task]]

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes must have the ids 0, 1, … in order")
        if self.task == "binary-segmentation" and len(self.classes) != 2:
            raise ValueError(f"a binary task has two classes, found {len(self.classes)}")
        if HEADLINE[self.task] not in self.metrics:
            raise ValueError(f"metrics lack the headline {HEADLINE[self.task]!r}")
        if len({u.id for u in self.units}) != len(self.units):
            raise ValueError("unit ids repeat")
        for unit in self.units:
            if len(unit.confusion) != len(self.classes):
                raise ValueError(f"unit {unit.id!r}: {len(unit.confusion)} classes, the record has {len(self.classes)}")
        return self


def make_result(**fields: Any) -> Result:
    """A record with its ``id`` computed. Raises FormatError with the JSON pointer of the first fault."""
    try:
        draft = Result.model_validate({**fields, "id": "0" * 64})
        return draft.model_copy(update={"id": content_id(draft)})
    except ValidationError as error:
        raise FormatError(describe_validation(error), where="result") from None


def content_id(result: Result) -> str:
    """sha256 of the canonical JSON of all fields but ``id``."""
    return hashlib.sha256(canonical_json(result.model_dump(mode="json", exclude={"id"}))).hexdigest()


def write_result(path: str | Path, result: Result) -> None:
    """Write a record atomically as canonical JSON."""
    write_atomic(path, canonical_json(result))


def read_result(path: str | Path) -> Result:
    """Read and check a record. Raises FormatError: the JSON pointer of the first fault, or an id that does not fit."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RESULT_BYTES + 1)
    except OSError as error:
        raise FormatError(
            f"cannot read the result ({error.strerror})", where=path, hint="run tidemark evaluate"
        ) from None
    if len(data) > MAX_RESULT_BYTES:
        raise FormatError(f"over the limit of {MAX_RESULT_BYTES} bytes for a result", where=path)
    try:
        raw = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None
    return parse_result(raw, where=path)


def parse_result(raw: Any, where: object = None) -> Result:
    """Validate a decoded record; a newer schema is reported before anything else."""
    version = str(raw.get("schema_version", "")) if isinstance(raw, dict) else ""
    major, _, minor = version[:16].partition(".")
    if major.isdecimal() and minor.isdecimal() and (int(major), int(minor)) > SCHEMA_VERSION:
        own = ".".join(map(str, SCHEMA_VERSION))
        raise FormatError(
            f"written by a newer version: needs schema >= {version[:16]}, this one reads {own}",
            where=where,
            hint="upgrade tidemark",
        )
    try:
        result = Result.model_validate_json(json.dumps(raw), strict=True)  # "1" is no integer, true is no number
    except ValidationError as error:
        raise FormatError(describe_validation(error)[:500], where=where) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a result ({error})"[:500], where=where) from None
    expected = content_id(result)
    if result.id != expected:
        raise FormatError(
            f"/id: the content has the id {expected[:16]}…, stated is {result.id[:16]}…",
            where=where,
            hint="the record was edited after scoring; evaluate again",
        )
    return result


def result_schema() -> dict[str, Any]:
    """JSON Schema of ``result.json``."""
    return Result.model_json_schema()


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
