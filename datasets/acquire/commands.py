"""What ``tidemark acquire l8s2``, ``acquire s1`` and ``availability`` do, with their words."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import requests
from shapely.geometry.base import BaseGeometry

from ...errors import InputError, PartialResultError, SceneError
from ..files import sha256_file
from . import availability as counting
from . import l8s2, report, s1, s1_numbers
from .crop import Crop, most_bytes
from .hosts import Services, load_services
from .items import Fetched, Item
from .ledger import Ledger, hold
from .report import Decision
from .run import Outcome, carry_out, fetch_parts
from .session import open_session
from .sign import Signer
from .stac import Scene, parse_bbox, parse_days, search
from .transport import Progress, check_room, remote_bytes

S1_PARTS = ".acquire-parts"  # hidden: no builder looks there


def acquire_l8s2(
    bbox: str,
    start: str,
    end: str,
    out: Path,
    limits: l8s2.Limits,
    *,
    whole: bool = False,
    dry_run: bool = False,
    jobs: int = 4,
    max_bytes: int | None = None,
    config: Path | None = None,
    progress: Progress | None = None,
) -> Outcome | None:
    """Pairs of Landsat-8 and Sentinel-2 into ``out``, as the ``l8s2`` builder and ``predict`` read them.

    Beside the products lie a CSV of every pair looked at and a map. None comes back from a dry run.

    Raises:
        InputError, ConfigError, ArchiveError, StorageError: see ``search`` and ``carry_out``.
        PartialResultError: some files did not come; run it again.
    """
    services, area, days = load_services(config), parse_bbox(bbox), parse_days(start, end)
    session = open_session(services)
    around = l8s2.wanted_days(days, limits)
    s2 = _found(services, "earth-search", "sentinel-2", area, days, session)
    level2 = _found(services, "usgs", "landsat-l2", area, around, session)
    level1 = _found(services, "usgs", "landsat-l1", area, around, session)
    pairs, decisions = l8s2.decide(s2, level2, level1, area, limits)
    files = [l8s2.files_of(pair, area, whole) for pair in pairs]
    crops, items = _distinct(files)
    if whole:
        items = _with_sizes(items, session, jobs)
    sizes = {crop.path: l8s2.crop_bytes(crop) for crop in crops} | {item.path: item.bytes for item in items}
    most = sum(sizes[crop.path] for crop in crops)
    decisions = _sized(decisions, files, sizes)
    _report(out, f"l8s2_{_label(area, days)}", decisions, area, "Landsat-8 and Sentinel-2 pairs")
    _print_size(len(sizes), _total(sizes.values()))
    if dry_run or not pairs:
        return None
    with hold(out):
        options = {"expected": most, "jobs": jobs, "max_bytes": max_bytes, "progress": progress}
        outcome = carry_out(crops, items, out, session, **options)
    return _end(outcome, out)


def acquire_s1(
    bbox: str,
    start: str,
    end: str,
    out: Path,
    *,
    orbits: str = "both",
    max_days: int = 12,
    min_share: float = 0.9,
    first_number: int = s1.FIRST_NUMBER,
    dry_run: bool = False,
    jobs: int = 4,
    max_bytes: int | None = None,
    config: Path | None = None,
    progress: Progress | None = None,
) -> Outcome | None:
    """Sentinel-1 scenes of both orbits into ``out/s1_ascend`` and ``out/s1_descend``, VV and VH in dB.

    Which passes a scene number stands for is kept in ``s1_scenes.json``, so that a later run adds to it.

    Raises:
        As ``acquire_l8s2``.
    """
    if orbits not in ("both", *s1.ORBITS):
        raise InputError(f"orbits must be both, ascending or descending, found {orbits!r}")
    services, area, days = load_services(config), parse_bbox(bbox), parse_days(start, end)
    session = open_session(services)
    passes, refused = s1.passes(_found(services, "planetary-computer", "sentinel-1", area, days, session))
    scenes, decisions = s1.decide(passes, area, orbits, max_days, min_share)
    decisions += refused
    numbers, listing = s1_numbers.numbered(out, scenes, area, first_number)
    wanted = {
        s1.final_item(number, scene[orbit], area): scene[orbit]
        for number, scene in zip(numbers, scenes, strict=True)
        for orbit in scene
    }
    missing = {item: wanted[item] for item in Ledger(out).missing(list(wanted))}
    parts = {item: s1.parts_of(p, area, S1_PARTS) for item, p in missing.items()}
    crops = [crop for of_pass in parts.values() for bands in of_pass.values() for crop in bands.values()]
    most = sum(most_bytes(crop, s1.PIXEL_M) for crop in crops)
    _report(out, f"s1_{_label(area, days)}", decisions, area, "Sentinel-1 passes")
    _print_size(len(crops), most)
    if dry_run or not scenes:
        return None
    with hold(out):
        check_room(out, 2 * most, None)  # the parts, and what is made of them
        check_room(out, most, max_bytes)
        s1_numbers.write(out, listing)
        ledger, sign = Ledger(out), Signer(services.service("planetary-computer"), session)
        crops = [crop for crop in crops if not (out / crop.path).is_file()]
        came, failed = fetch_parts(crops, out, session, expected=most, jobs=jobs, sign=sign, progress=progress)
        made = 0
        for item, p in missing.items():
            files = {name: {b: out / c.path for b, c in bands.items()} for name, bands in parts[item].items()}
            if all(file.is_file() for bands in files.values() for file in bands.values()):
                try:
                    s1.write_pass(p, files, area, out / item.path)
                except SceneError as error:
                    failed[item.path] = error
                    continue
                size = (out / item.path).stat().st_size
                ledger.add(Fetched(item, size, sha256_file(out / item.path), None))
                made += 1
        if not failed:
            shutil.rmtree(out / S1_PARTS, ignore_errors=True)
    return _end(Outcome(made, sum(f.bytes for f in came), len(wanted) - len(missing), failed), out)


def availability(
    bbox: str,
    year: int,
    out: Path,
    *,
    max_cloud_percent: float = 10.0,
    min_share: float = 0.9,
    config: Path | None = None,
) -> counting.Availability:
    """Cloud-free dates of a year over an area: CSV and plot below ``out``, words to standard output."""
    services, area = load_services(config), parse_bbox(bbox)
    days = parse_days(f"{year:04d}-01-01", f"{year:04d}-12-31")
    session = open_session(services)
    s2 = _found(services, "earth-search", "sentinel-2", area, days, session)
    landsat = _found(services, "usgs", "landsat-l2", area, days, session)
    found = counting.availability(year, landsat, s2, area, max_cloud_percent, min_share)
    name = f"availability_{_label(area, days)}"
    title = f"{year}, scenes of at most {max_cloud_percent:g} % cloud that cover {min_share:.0%} of the area"
    counting.write_csv(out / f"{name}.csv", found)
    counting.write_plot(out / f"{name}.png", found, title)
    print(counting.words(found))
    print(out / f"{name}.csv")
    return found


def _found(services: Services, service: str, collection: str, area: BaseGeometry, days, session) -> list[Scene]:
    scenes, malformed = search(services, service, collection, area, days, session)
    print(f"{len(scenes)} items of {services.collection(service, collection)}")
    for line in malformed[:5]:
        print(f"  left out, malformed: {line}")
    if len(malformed) > 5:
        print(f"  and {len(malformed) - 5} more")
    return scenes


def _distinct(parts: Iterable[tuple[list[Crop], list[Item]]]) -> tuple[list[Crop], list[Item]]:
    """Files of all pairs, each once: two Sentinel-2 tiles can share a Landsat scene."""
    crops: dict[str, Crop] = {}
    items: dict[str, Item] = {}
    for some_crops, some_items in parts:
        crops.update((c.path, c) for c in some_crops)
        items.update((i.path, i) for i in some_items)
    return list(crops.values()), list(items.values())


def _with_sizes(items: Sequence[Item], session: requests.Session, jobs: int) -> list[Item]:
    """The items with the lengths that the archives state where their catalogues do not."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        sizes = pool.map(lambda i: i.bytes if i.bytes is not None else remote_bytes(i.url, session), items)
        return [replace(item, bytes=size) for item, size in zip(items, sizes, strict=True)]


def _sized(
    decisions: list[Decision], files: list[tuple[list[Crop], list[Item]]], sizes: dict[str, int | None]
) -> list[Decision]:
    """The decisions with the bytes of each accepted pair; a pair's metadata of unknown length is not counted."""
    totals = iter([sum(sizes[f.path] or 0 for f in (*crops, *items)) for crops, items in files])
    return [replace(d, size=next(totals)) if d.accepted else d for d in decisions]


def _total(sizes: Iterable[int | None]) -> int:
    return sum(size or 0 for size in sizes)


def _label(area: BaseGeometry, days) -> str:
    """Dates and south-west corner: what tells the reports of several runs into one folder apart."""
    west, south, _, _ = area.bounds
    return f"{days[0]:%Y%m%d}-{days[1]:%Y%m%d}_{abs(south):.3f}{'NS'[south < 0]}_{abs(west):.3f}{'EW'[west < 0]}"


def _report(out: Path, name: str, decisions: list[Decision], area: BaseGeometry, title: str) -> None:
    report.write_csv(out / f"{name}.csv", decisions)
    report.write_map(out / f"{name}.png", decisions, area, title)
    print(report.summary(decisions))
    print(out / f"{name}.csv")


def _print_size(files: int, most: int) -> None:
    print(f"{files} files, at most {report.human_bytes(most)}")


def _end(outcome: Outcome, out: Path) -> Outcome:
    if outcome.failed:
        path, error = next(iter(sorted(outcome.failed.items())))
        raise PartialResultError(f"{outcome.words()}; first {path}: {error}", where=out, hint="run it again")
    print(outcome.words())
    return outcome
