"""The result record (``result.json``): one model, one seed, one split, with the integers behind every figure.

Records come from strangers too, so the models are strict: unknown fields, non-finite numbers, long texts, names that
could leave a folder and integers that contradict each other are refused with a JSON pointer to the fault.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ..datasets.files import write_atomic
from ..datasets.spec import ClassDef, Sha256, Strict, canonical_json, describe_validation
from ..errors import FormatError
from .record_parts import (
    BandName,
    DatasetRef,
    Harness,
    Histogram,
    Interval,
    Metric,
    MetricKey,
    ModelRef,
    Speed,
    Text,
    Unit,
    Words,
)

__all__ = [
    "ClassDef",
    "DatasetRef",
    "Harness",
    "Histogram",
    "Interval",
    "Metric",
    "ModelRef",
    "Speed",
    "Unit",
    "Result",
    "Kind",
    "HEADLINE",
    "RESULT_NAME",
    "MAX_RESULT_BYTES",
    "SCHEMA_VERSION",
    "content_id",
    "make_result",
    "parse_result",
    "read_result",
    "result_schema",
    "upgraded",
    "write_result",
]

SCHEMA_VERSION = (1, 1)
RESULT_NAME = "result.json"
MAX_RESULT_BYTES = 32 << 20
MAX_UNITS = 100_000
HEADLINE = {
    "binary-segmentation": "iou",
    "segmentation": "mean_iou",
    "classification": "macro_f1",
    "harmonization": "psnr",
}

Kind = Literal["binary-segmentation", "segmentation", "classification", "harmonization"]


class Result(Strict):
    """``result.json``. ``id`` is the sha256 of everything else that is not at its default, in canonical JSON.

    A default, once published, therefore never changes; a new field with a default leaves the ids of old records alone.
    ``classes`` are those of a classifying task, ``bands`` the target's bands of a harmonization. ``calibration`` and
    ``confidence`` (of the answer given) are over the whole split, None without probabilities. ``config`` is the recipe
    as YAML, ``config_hash`` its digest without seed and places (None: foreign predictions): records that share it are
    the seeds of one row. ``made_with``, ``packages``, ``command`` and ``device`` tell how the predictions were made,
    ``harness`` what scored them.
    """

    schema_version: Annotated[str, Field(pattern=r"^\d{1,4}\.\d{1,4}$")] = ".".join(map(str, SCHEMA_VERSION))
    id: Sha256
    task: Kind
    dataset: DatasetRef
    model: ModelRef
    seed: Annotated[int, Field(ge=0, le=2**32)] | None
    classes: Annotated[tuple[ClassDef, ...], Field(max_length=255)] = ()
    bands: Annotated[tuple[BandName, ...], Field(max_length=255)] = ()
    metrics: Annotated[dict[MetricKey, Metric], Field(max_length=1000)]
    units: Annotated[tuple[Unit, ...], Field(min_length=1, max_length=MAX_UNITS)]
    chips: Annotated[int, Field(ge=1, le=2**53)]
    calibration: Histogram | None = None
    confidence: Histogram | None = None
    speed: Speed | None = None
    harness: Harness
    made_with: Harness | None = None
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

    @property
    def names(self) -> tuple[str, ...]:
        """What the figures with a ``:name`` are about: the classes, or the bands of a harmonization."""
        return self.bands or tuple(c.name for c in self.classes)

    @model_validator(mode="after")
    def _consistent(self) -> Result:
        if HEADLINE[self.task] not in self.metrics:
            raise ValueError(f"metrics lack the headline {HEADLINE[self.task]!r}")
        if len({u.id for u in self.units}) != len(self.units):
            raise ValueError("unit ids repeat")
        if self.task == "harmonization":
            self._check_sums()
        else:
            self._check_counts()
        return self

    def _check_counts(self) -> None:
        if len(self.classes) < 2 or [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("classes must have the ids 0, 1, … in order, at least two")
        if self.task == "binary-segmentation" and len(self.classes) != 2:
            raise ValueError(f"a binary task has two classes, found {len(self.classes)}")
        if self.bands:
            raise ValueError(f"bands belong to a harmonization, this is {self.task}")
        for unit in self.units:
            if len(unit.confusion) != len(self.classes):
                raise ValueError(f"unit {unit.id!r}: {len(unit.confusion)} classes, the record has {len(self.classes)}")
        pixels = sum(unit.pixels for unit in self.units)
        for key in ("calibration", "confidence"):
            histogram = getattr(self, key)
            if histogram is not None and (found := sum(histogram.missed) + sum(histogram.hit)) != pixels:
                raise ValueError(f"{key}: {found} answers in the histogram, the units have {pixels}")

    def _check_sums(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError("a harmonization names its bands, each once")
        if self.classes or self.calibration or self.confidence:
            raise ValueError("a harmonization has no classes and no probabilities")
        expected = {key: len(values) for key, values in self.units[0].sums.items()}
        for unit in self.units:
            found = {key: len(values) for key, values in unit.sums.items()}
            if not found or found != expected:
                raise ValueError(f"unit {unit.id!r}: sums {found}, those of {self.units[0].id!r} are {expected}")


def make_result(**fields: Any) -> Result:
    """A record with its ``id`` computed. Raises FormatError with the JSON pointer of the first fault."""
    try:
        draft = Result.model_validate({**fields, "id": "0" * 64})
        return draft.model_copy(update={"id": content_id(draft)})
    except ValidationError as error:
        raise FormatError(describe_validation(error), where="result") from None


def content_id(result: Result) -> str:
    """sha256 of the canonical JSON of all fields but ``id`` that differ from their default, and the schema version."""
    fields = result.model_dump(mode="json", exclude={"id"}, exclude_defaults=True)
    return hashlib.sha256(canonical_json({**fields, "schema_version": result.schema_version})).hexdigest()


def upgraded(result: Result) -> Result:
    """The same record in the present schema, with the id that it has there."""
    return make_result(**result.model_dump(exclude={"id", "schema_version"}))


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
    if result.schema_version == "1.0":  # its ids cover every field that it knew
        expected = hashlib.sha256(canonical_json({key: raw[key] for key in raw if key != "id"})).hexdigest()
    else:
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
