"""What a table is made of: ``configs/tables/<name>.yaml`` and the runs that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ..configs import load_config, read_yaml
from ..datasets.spec import (
    MANIFEST_NAME,
    Manifest,
    Name,
    SplitName,
    Strict,
    Version,
    describe_validation,
    load_manifest,
)
from ..errors import ConfigError, FormatError
from ..models.runs import config_hash, run_folder

PACKAGE = Path(__file__).resolve().parents[1]
Words = Annotated[str, Field(max_length=500)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...], Field(min_length=1, max_length=100)]


class TableRow(Strict):
    """One configuration. ``seeds`` where they differ from the profile's (trivial rows need one)."""

    recipe: Annotated[str, Field(max_length=200)]
    seeds: Seeds | None = None
    overrides: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    profiles: tuple[str, ...] = ()  # only in these; empty: in all


class TablePart(Strict):
    """The rows on one data set; ``mark`` stands in its title (what makes it no fair test, say)."""

    dataset: Name
    version: Version
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)]
    build: Words  # the command that makes the data set
    mark: Words = ""
    overrides: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    rows: Annotated[tuple[TableRow, ...], Field(min_length=1)]


class Profile(Strict):
    """Seeds and overrides for one kind of machine."""

    seeds: Seeds
    overrides: Annotated[tuple[Words, ...], Field(max_length=100)] = ()


class TableSpec(Strict):
    """``configs/tables/<name>.yaml``. ``tolerance`` is ``--check``'s, of headlines that have no interval."""

    title: Words
    tolerance: Annotated[float, Field(gt=0, le=1)]
    speed: bool = False
    profiles: Annotated[dict[Literal["cpu", "full"], Profile], Field(min_length=1)]
    parts: Annotated[tuple[TablePart, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _pairs(self) -> TableSpec:
        for holder in (*self.profiles.values(), *self.parts, *(row for part in self.parts for row in part.rows)):
            if len(holder.overrides) % 2:
                raise ValueError(f"overrides come as KEY VALUE pairs, {holder.overrides[-1]!r} has no value")
        return self


@dataclass(frozen=True)
class Job:
    """One run: a recipe with its overrides, and where its folder will be."""

    recipe: str
    overrides: tuple[str, ...]
    seed: int
    splits: tuple[str, ...]
    folder: Path
    run_id: str  # content hash of data and configuration, and the seed
    manifest: Manifest

    def __str__(self) -> str:
        return f"{self.recipe} seed {self.seed} on {self.manifest.name} {self.manifest.version}"


def table_names() -> list[str]:
    """Names of the tables that come with the package."""
    return sorted(path.stem for path in (PACKAGE / "configs" / "tables").glob("*.yaml"))


def load_table(table: str | Path) -> TableSpec:
    """A table by name or path. Raises ConfigError naming the fault or the tables there are."""
    path = Path(table)
    if path.suffix != ".yaml" and not path.exists():
        path = PACKAGE / "configs" / "tables" / f"{path.name}.yaml"
        if not path.exists():
            raise ConfigError("no such table", where=table, hint=f"there is {', '.join(table_names())}")
    try:
        return TableSpec.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(describe_validation(error), where=path) from None


def plan(spec: TableSpec, profile: str, data_root: str | Path, out: str | Path) -> list[Job]:
    """All runs of a table in its order. Raises FormatError with the build command where a data set is missing."""
    if profile not in spec.profiles:
        raise ConfigError(f"no profile {profile!r}, there is {', '.join(spec.profiles)}", where=spec.title)
    chosen, jobs = spec.profiles[profile], []
    for part in spec.parts:
        folder = Path(data_root) / part.dataset / part.version
        if not (folder / MANIFEST_NAME).is_file():
            raise FormatError("the data set is not there", where=folder, hint=f"make it: {part.build}")
        manifest = load_manifest(folder)
        for row in part.rows:
            if row.profiles and profile not in row.profiles:
                continue
            for seed in row.seeds or chosen.seeds:
                overrides = (
                    *chosen.overrides,
                    *part.overrides,
                    *row.overrides,
                    "DATA.NAME",
                    part.dataset,
                    "DATA.VERSION",
                    part.version,
                    "DATA.ROOT",
                    str(data_root),
                    "OUTPUT",
                    str(out),
                    "SEED",
                    str(seed),
                )
                cfg = load_config(row.recipe, overrides)
                jobs.append(
                    Job(
                        row.recipe,
                        overrides,
                        seed,
                        part.splits,
                        run_folder(cfg, manifest),
                        f"{config_hash(cfg, manifest.content_sha256)}-seed{seed}",
                        manifest,
                    )
                )
    return jobs
