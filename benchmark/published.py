"""Figures that others have published, as YAML, shown beside ours and never mixed with them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from ..configs import read_yaml
from ..datasets.spec import Strict, describe_validation
from ..errors import ConfigError
from .record_parts import MetricKey
from .sweep import load_table, table_names

FOLDER = Path(__file__).resolve().parents[1] / "configs" / "tables" / "published"
Words = Annotated[str, Field(min_length=1, max_length=1000)]


class PublishedRow(Strict):
    """One model's figures, by metric key of our tables; ``differs`` says what is peculiar to this row."""

    model: Annotated[str, Field(min_length=1, max_length=100)]
    metrics: Annotated[dict[MetricKey, float], Field(min_length=1, max_length=50)]
    differs: Words | None = None


class Differs(Strict):
    """What keeps the published figures from being compared with ours directly."""

    data: Words
    split: Words
    protocol: Words


class Published(Strict):
    """``configs/tables/published/<name>.yaml``: the figures of one table of one publication."""

    source: Words
    url: Annotated[str, Field(pattern=r"^https://\S{1,200}$")]
    differs: Differs
    rows: Annotated[tuple[PublishedRow, ...], Field(min_length=1, max_length=100)]

    @property
    def notes(self) -> tuple[str, ...]:
        """Source and differences, as notes below a table."""
        what = self.differs
        own = [f"{row.model}: {row.differs}." for row in self.rows if row.differs]
        return (
            f"† Published by others, not scored here: {self.source}, {self.url}.",
            f"† differ in data ({what.data}), split ({what.split}) and protocol ({what.protocol}).",
            *(f"† {text}" for text in own),
        )


def load_published(name: str | Path) -> Published:
    """Published figures by name or path. Raises ConfigError with the fault's place, or the names there are."""
    path = Path(name)
    if path.suffix != ".yaml":
        path = FOLDER / f"{path.name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.yaml")))
            raise ConfigError("no such published figures", where=name, hint=f"there is {known}")
    try:
        return Published.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(describe_validation(error), where=path) from None


def published_for(dataset: str, version: str, split: str) -> Published | None:
    """The figures that a table of the package shows beside a data set's split; None where there are none."""
    for name in table_names():
        for part in load_table(name).parts:
            if (part.dataset, part.version) == (dataset, version) and split in part.published:
                return load_published(part.published[split])
    return None
