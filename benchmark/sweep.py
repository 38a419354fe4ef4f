"""What a table is made of: ``configs/tables/<name>.yaml`` and the runs that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
from ..errors import ConfigError, FormatError, InputError
from ..models.registry import find_model
from ..models.runs import config_hash, run_folder, with_init

PACKAGE = Path(__file__).resolve().parents[1]
Words = Annotated[str, Field(max_length=500)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...], Field(min_length=1, max_length=100)]


class Elsewhere(Strict):
    """Another data set with the same bands and classes, on which a row's weights are scored too: scenes, for patches.

    ``build`` is the command that makes it, where it is not that of a part of the table.
    """

    dataset: Name
    version: Version
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)] = ("test",)
    build: Words = ""


class TableRow(Strict):
    """One configuration. ``seeds`` where they differ from the profile's (trivial rows need one)."""

    recipe: Annotated[str, Field(max_length=200)]
    seeds: Seeds | None = None
    overrides: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    profiles: tuple[str, ...] = ()  # only in these; empty: in all
    evaluate_on: Annotated[tuple[Elsewhere, ...], Field(max_length=20)] = ()


class TablePart(Strict):
    """The rows on one data set; ``mark`` stands in its title (what makes it no fair test, say).

    ``published`` names, by split, the file of ``configs/tables/published`` with the figures that others reported.
    """

    dataset: Name
    version: Version
    splits: Annotated[tuple[SplitName, ...], Field(min_length=1)]
    build: Words  # the command that makes the data set
    mark: Words = ""
    overrides: Annotated[tuple[Words, ...], Field(max_length=100)] = ()
    published: dict[SplitName, Annotated[str, Field(max_length=200)]] = {}
    rows: Annotated[tuple[TableRow, ...], Field(min_length=1)]


class Profile(Strict):
    """Seeds, overrides and wall time (all runs one after the other) for one kind of machine."""

    seeds: Seeds
    budget_min: Annotated[float, Field(gt=0, le=100_000)] | None = None
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
class Target:
    """One split of one data set that a run is scored on; ``place`` is where its predictions and record lie."""

    dataset: str
    version: str
    content_sha256: str
    split: str
    place: Path
    folder: Path | None = None  # of a data set that the run was not made on


@dataclass(frozen=True)
class Job:
    """One run: a recipe with its overrides, where its folder will be, and what it is scored on."""

    recipe: str
    overrides: tuple[str, ...]
    seed: int
    device: str  # TRAIN.DEVICE
    folder: Path
    run_id: str  # content hash of data and configuration, and the seed
    targets: tuple[Target, ...]

    def __str__(self) -> str:
        return f"{self.recipe} seed {self.seed} on {self.targets[0].dataset} {self.targets[0].version}"


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
    """All runs of a table in its order.

    Raises:
        FormatError: a data set is missing (with its build command), or lacks a split.
        InputError: a row is to be scored on data with other bands or classes, or has no weights to score elsewhere.
        ConfigError: an unknown profile, or the same run twice.
    """
    if profile not in spec.profiles:
        raise ConfigError(f"no profile {profile!r}, there is {', '.join(spec.profiles)}", where=spec.title)
    chosen, jobs = spec.profiles[profile], []
    commands = {(part.dataset, part.version): part.build for part in spec.parts}
    for part in spec.parts:
        manifest = _manifest(Path(data_root), part, part.build)
        for row in part.rows:
            if row.profiles and profile not in row.profiles:
                continue
            fixed = ("DATA.NAME", part.dataset, "DATA.VERSION", part.version, "DATA.ROOT", str(data_root))
            shared = (*chosen.overrides, *part.overrides, *row.overrides, *fixed, "OUTPUT", str(out))
            cfg = load_config(row.recipe, shared)
            others = []
            for other in row.evaluate_on:
                build = other.build or commands.get((other.dataset, other.version), "build or pull it")
                found = _manifest(Path(data_root), other, build)
                _check_fits(found, manifest, cfg, f"evaluate_on {other.dataset} {other.version}")
                others.append((other, found))
            for seed in row.seeds or chosen.seeds:
                overrides = (*shared, "SEED", str(seed))
                cfg = with_init(load_config(row.recipe, overrides))
                folder = run_folder(cfg, manifest)
                targets = [
                    Target(part.dataset, part.version, manifest.content_sha256, split, folder / split)
                    for split in part.splits
                ]
                for other, found in others:
                    home = Path(data_root) / other.dataset / other.version
                    place = folder / f"on-{other.dataset}-{other.version}"
                    targets += [
                        Target(other.dataset, other.version, found.content_sha256, split, place / split, home)
                        for split in other.splits
                    ]
                run_id = f"{config_hash(cfg, manifest.content_sha256)}-seed{seed}"
                jobs.append(Job(row.recipe, overrides, seed, cfg.TRAIN.DEVICE, folder, run_id, tuple(targets)))
    first: dict[str, Job] = {}
    for job in jobs:
        if first.setdefault(job.run_id, job) is not job:
            raise ConfigError(f"two rows ask for the same run ({first[job.run_id]}; {job})", where=spec.title)
    return jobs


def _manifest(data_root: Path, wanted: TablePart | Elsewhere, build: str) -> Manifest:
    folder = data_root / wanted.dataset / wanted.version
    if not (folder / MANIFEST_NAME).is_file():
        raise FormatError("the data set is not there", where=folder, hint=f"make it: {build}")
    manifest = load_manifest(folder)
    for split in wanted.splits:
        manifest.split_shards(split)  # names the splits there are
    return manifest


def _check_fits(found: Manifest, own: Manifest, cfg: Any, where: str) -> None:
    """InputError unless a row's weights can be scored on other data: another content, the same bands and classes."""
    if not find_model(cfg.MODEL.NAME).trained:
        raise InputError(f"{cfg.MODEL.NAME} has no weights to score elsewhere", where=where)
    if found.content_sha256 == own.content_sha256:
        raise InputError("that is the data set of the row itself", where=where)
    bands, theirs = _bands(own), _bands(found)
    needed = {name: bands[name] for name in (cfg.DATA.BANDS or bands) if name in bands}
    if any(theirs.get(name) != unit for name, unit in needed.items()):
        raise InputError(f"expected bands {_words(needed)}, found {_words(theirs)}", where=where)
    expected, classes = ([c.name for c in m.task.classes] for m in (own, found))
    maps_patches = (own.task.kind, found.task.kind) == ("classification", "segmentation")  # see models/patch_map.py
    if expected != classes or own.task.kind != found.task.kind and not maps_patches:
        raise InputError(
            f"expected {own.task.kind} of {', '.join(expected)}, found {found.task.kind} of {', '.join(classes)}",
            where=where,
        )


def _bands(manifest: Manifest) -> dict[str, str]:
    """Unit and sensor by name of the image's bands."""
    image = next(array for array in manifest.arrays if array.role == "image")
    return {band.name: ", ".join(filter(None, (band.unit, band.sensor))) for band in image.bands}


def _words(bands: dict[str, str]) -> str:
    return "; ".join(f"{name} ({what})" for name, what in bands.items())
