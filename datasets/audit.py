"""Does any knowledge of one split leak into another? The questions of an audit, over a published data set.

``audit`` reads every chip once, keeps edges and hashes, and compares the splits. It fails on a scene in two splits,
ground of two splits closer than the guard distance, labels off the image's grid, equal chips, bit-exact overlaps and
seams between splits, classes that a split lacks, and blank chips with labels. It reports near-duplicates between splits
and duplicates within one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations
from pathlib import Path

import numpy as np

from .audit_grids import label_grids, outlines
from .audit_report import MAX_PAIRS, AuditReport, Check, Pair, Status, write_report
from .audit_scan import Chips, Scan, open_chips, scan
from .footprints import near_blocks, near_pairs
from .overlaps import equal_runs, exact_overlap, likeness, near_hashes, overlap_candidates
from .seams import MAX_COMPARISONS, MAX_LIMIT, SIDES, edge_features, seam_limit, seams

__all__ = ["AuditReport", "audit", "write_report"]

MAX_CONFIRMED = 20_000  # candidate pairs whose pixels are compared
MAX_COPIES = 64  # of equal chips, those of one split whose pairs are listed
MIN_LIKENESS = 0.8
FAR_M = 10_000.0  # edges of chips that lie further apart cannot continue each other, however alike they look


def audit(folder: str | Path, progress: Callable[[int, int, str], None] | None = None) -> AuditReport:
    """Check the splits of the data set in ``folder`` (``<root>/<name>/<version>``).

    Args:
        folder: a published data set.
        progress: called with chips read, chips in all and the shard being read.

    Raises:
        FormatError, ChecksumError: the data set is damaged; ``verify`` says more.
    """
    chips = open_chips(folder)
    seen = scan(chips, progress)
    manifest = chips.manifest
    return AuditReport(
        dataset=manifest.name,
        version=manifest.version,
        title=manifest.title,
        content_sha256=manifest.content_sha256,
        simulated=manifest.simulated,
        splits=manifest.splits,
        checks=(
            _scenes(chips),
            _footprints(chips),
            label_grids(chips),
            *_equal_chips(chips),
            _overlaps(chips, seen),
            _seams(chips, seen),
            _classes(chips, seen),
            _blank(chips, seen),
            _near_duplicates(chips, seen),
        ),
    )


def _result(
    name: str,
    title: str,
    message: str,
    pairs: list[Pair],
    bad: Status = "fail",
    chips: dict[str, int] | None = None,
    *,
    found: int | None = None,
    candidates: int = 0,
    complete: bool = True,
) -> Check:
    """``found``: pairs in all, where not all are given.

    No check passes with more ``candidates`` than are compared, or where it is not ``complete`` for another reason.
    """
    status = bad if pairs else "pass" if complete and candidates <= MAX_CONFIRMED else "not-checkable"
    if candidates > MAX_CONFIRMED:
        message += f"; only {_number(MAX_CONFIRMED)} of {_number(candidates)} candidates were compared"
    found = len(pairs) if found is None else found
    kept = tuple(pairs[:MAX_PAIRS])
    return Check(name=name, title=title, status=status, message=message, found=found, chips=chips or {}, pairs=kept)


def _unchecked(name: str, title: str, why: str) -> Check:
    return Check(name=name, title=title, status="not-checkable", message=why)


def _split_pairs(chips: Chips) -> list[tuple[np.ndarray, np.ndarray]]:
    """Chip numbers of every two splits."""
    members = [np.flatnonzero(chips.split == number) for number in range(len(chips.manifest.splits))]
    return [(a, b) for a, b in combinations(members, 2) if a.size and b.size]


def _involved(chips: Chips, pairs: Iterable[tuple[int, int]], seen: np.ndarray | None = None) -> dict[str, int]:
    """``split (against other)`` -> how many of its chips are in the pairs.

    ``seen``: bool (chips, splits), whether a chip met a split before; a pair seen is marked there.
    """
    names = [s.name for s in chips.manifest.splits]
    seen = np.zeros((len(chips), len(names)), bool) if seen is None else seen
    numbers = np.array(list(pairs), np.int64).reshape(-1, 2)
    for one, other in (numbers.T, numbers.T[::-1]):
        seen[one, chips.split[other]] = True
    counts = {
        f"{name} (against {other})": int(np.count_nonzero(seen[chips.split == a, b]))
        for a, name in enumerate(names)
        for b, other in enumerate(names)
    }
    return {key: count for key, count in sorted(counts.items()) if count}


def _found(counts: dict[str, int], chips: Chips, what: str) -> str:
    """``68 of 70 chips of test (against train), …; what`` or only what was compared."""
    sizes = {s.name: s.chips for s in chips.manifest.splits}
    touched = (f"{count} of {sizes[key.split(' ')[0]]} chips of {key}" for key, count in counts.items())
    return "; ".join(filter(None, (", ".join(touched), what)))


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\N{NO-BREAK SPACE}")


def _scenes(chips: Chips) -> Check:
    name, title = "scenes", "No scene in two splits"
    manifest, pairs, homes = chips.manifest, [], {}
    number = {split.name: n for n, split in enumerate(manifest.splits)}
    home = np.array([number[scene.split] for scene in manifest.scenes])
    for chip in np.flatnonzero(home[chips.scene] != chips.split):
        scene = manifest.scenes[chips.scene[chip]]
        pairs.append(Pair(first=chips.name(chip), detail=f"its scene {scene.id} belongs to {scene.split}"))
    for scene in manifest.scenes:
        for source in scene.sources:
            homes.setdefault(source.sha256, []).append((scene, source.path))
    for users in homes.values():
        for (one, path), (two, _) in combinations(users, 2):
            # a tile of a mosaic serves scenes far apart: where both are on the map, their footprints tell
            if one.split != two.split and None in (one.bounds, two.bounds):
                detail = f"the same source file {path}"
                pairs.append(Pair(first=f"{one.split}/{one.id}", second=f"{two.split}/{two.id}", detail=detail))
    known = sum(bool(scene.sources) for scene in manifest.scenes)
    message = f"{len(manifest.scenes)} scenes, {known} of them with the sha256 of their source files"
    return _result(name, title, f"{message}; {len(pairs)} leaks" if pairs else message, pairs)


def _footprints(chips: Chips) -> Check:
    name, title = "footprints", "Ground of two splits further apart than the guard distance"
    manifest = chips.manifest
    guard = manifest.guard_distance_m or 0.0
    corners = outlines(chips)
    known = np.isfinite(corners).all(axis=(1, 2))
    if not known.any():
        return _unchecked(name, title, "no chip has a transform and a CRS")
    pairs, counts, total = [], {}, 0
    seen = np.zeros((len(chips), len(manifest.splits)), bool)
    for first, second in _split_pairs(chips):
        for found, distance in near_blocks(corners[first], corners[second], guard):
            total += len(found)
            one, other = first[found[:, 0]], second[found[:, 1]]
            room = MAX_PAIRS - len(pairs)
            for a, b, metres in zip(one[:room], other[:room], distance[:room], strict=True):
                detail = "overlap" if metres == 0 else f"{metres:.0f} m apart"
                pairs.append(Pair(first=chips.name(a), second=chips.name(b), detail=detail))
            counts = _involved(chips, np.stack([one, other], axis=1), seen)
    stated = f"guard distance {guard:g} m" + ("" if manifest.guard_distance_m else " (none is stated)")
    compared = f"{stated}, {int(known.sum())} of {len(chips)} chips have a georeference"
    comparable = all(known[first].any() and known[second].any() for first, second in _split_pairs(chips))
    message = _found(counts, chips, compared)
    return _result(name, title, message, pairs, chips=counts, found=total, complete=comparable)


def _equal_chips(chips: Chips) -> tuple[Check, Check]:
    sums = chips.column(f"checksum_{chips.image.name}")
    order = np.argsort(sums, kind="stable")
    between, within = [], []
    for start, stop in equal_runs(sums[order]):
        copies = order[start:stop]
        kept = [copies[chips.split[copies] == split][:MAX_COPIES] for split in np.unique(chips.split[copies])]
        for a, b in combinations(np.concatenate(kept).tolist(), 2):
            (within if chips.split[a] == chips.split[b] else between).append((min(a, b), max(a, b)))
    checks = []
    for name, title, found, bad in (
        ("equal-chips", "No chip's bytes in two splits", between, "fail"),
        ("duplicates", "Duplicates within a split", within, "report"),
    ):
        equal = [(a, b) for a, b in sorted(found)[:MAX_CONFIRMED] if np.array_equal(chips.read(a), chips.read(b))]
        pairs = [Pair(first=chips.name(a), second=chips.name(b), detail="the same bytes") for a, b in equal]
        message = f"{len(chips)} checksums compared, {len(pairs)} pairs are equal"
        counts = _involved(chips, equal)
        checks.append(_result(name, title, message, pairs, bad, counts, candidates=len(found)))
    return checks[0], checks[1]


def _overlaps(chips: Chips, seen: Scan) -> Check:
    name, title = "overlaps", "No bit-exact overlap between splits"
    pairs, numbers, done = [], [], set()
    candidates = overlap_candidates(seen.prints, chips.split)
    for a, b, row, column, _ in candidates[:MAX_CONFIRMED]:
        if (a, b) in done:
            continue
        one, two = chips.read(a), chips.read(b)
        if size := exact_overlap(one, two, row, column, (chips.missing(a, one), chips.missing(b, two))):
            done.add((a, b))
            numbers.append((a, b))
            detail = f"{size} equal pixels at an offset of {row} rows and {column} columns"
            pairs.append(Pair(first=chips.name(a), second=chips.name(b), detail=detail))
    counts = _involved(chips, numbers)
    compared = f"{_number(len(seen.prints.hash))} windows compared at any offset"
    message = _found(counts, chips, compared)
    return _result(name, title, message, pairs, chips=counts, candidates=len(candidates))


def _seams(chips: Chips, seen: Scan) -> Check:
    name, title = "seams", "No chip continues a chip of another split"
    splits = _split_pairs(chips)
    comparisons = 4 * sum(a.size * b.size for a, b in splits)
    if seen.edges is None or comparisons > MAX_COMPARISONS:
        return _unchecked(name, title, f"{len(chips)} chips are too many to compare all edges; split by footprints")
    features = {side: edge_features(values) for side, values in seen.edges.items()}
    limit = seam_limit(features, comparisons)
    length = " and ".join(map(str, sorted(set(chips.image.shape[1:]))))
    if limit is None:
        return _unchecked(name, title, "too few edges with texture")
    if limit.correlation > MAX_LIMIT:
        why = f"edges of {length} px are too short to tell neighbours among {_number(comparisons)} pairs from chance"
        return _unchecked(name, title, why)
    found, dropped = [], 0
    for first, second in splits:
        for side, other in SIDES:
            pairs, ambiguous = seams(features[side].take(first), features[other].take(second), limit)
            found += [(r, int(first[i]), int(second[j]), side) for i, j, r in pairs]
            dropped += ambiguous
    found = _not_far(chips, sorted(found, key=lambda item: (-item[0], item[1:])))
    counts = _involved(chips, [(a, b) for _, a, b, _ in found])
    pairs = [
        Pair(first=chips.name(a), second=chips.name(b), detail=f"{side} edge continues, r = {r:.2f}", side=side)
        for r, a, b, side in found
    ]
    compared = (
        f"{_number(comparisons)} pairs of edges of {length} px compared, where a correlation of texture above "
        f"{limit.correlation:.2f} is no chance"
    )
    if dropped:
        compared += f"; {_number(dropped)} pairs more are of edges with many partners: a pattern, or many dates"
    return _result(name, title, _found(counts, chips, compared), pairs, chips=counts, complete=not dropped)


def _not_far(chips: Chips, found: list[tuple[float, int, int, str]]) -> list[tuple[float, int, int, str]]:
    """Without the pairs whose two chips are on the map, far from each other."""
    corners = outlines(chips) if found else np.empty((0, 4, 2))

    def apart(a: int, b: int) -> bool:
        known = np.isfinite(corners[[a, b]]).all()
        return bool(known) and not len(near_pairs(corners[[a]], corners[[b]], FAR_M)[0])

    return [item for item in found if not apart(item[1], item[2])]


def _classes(chips: Chips, seen: Scan) -> Check:
    name, title = "classes", "Every class in every split"
    task = chips.manifest.task
    if task.kind == "regression":
        return _unchecked(name, title, "a regression target has no classes")
    missing = [
        f"{split.name} has no {c.name}"
        for split, counts in zip(chips.manifest.splits, seen.counts, strict=True)
        for c in task.classes
        if counts[c.id] == 0
    ]
    message = "; ".join(missing) or f"{len(task.classes)} classes in {len(chips.manifest.splits)} splits"
    return Check(name=name, title=title, status="fail" if missing else "pass", message=message, found=len(missing))


def _blank(chips: Chips, seen: Scan) -> Check:
    found = np.flatnonzero(seen.blank & seen.labelled)
    pairs = [Pair(first=chips.name(k), detail="shows nothing and is labelled") for k in found]
    message = f"{int(seen.blank.sum())} of {len(chips)} chips show nothing, {len(pairs)} of them are labelled"
    return _result("blank-chips", "No blank chip with a label", message, pairs)


def _near_duplicates(chips: Chips, seen: Scan) -> Check:
    showing = np.flatnonzero(~seen.blank)
    candidates = showing[near_hashes(seen.looks[showing])]
    if len(candidates):
        candidates = candidates[chips.split[candidates[:, 0]] != chips.split[candidates[:, 1]]]
    alike = []
    for a, b in candidates[:MAX_CONFIRMED].tolist():
        value = likeness(chips.read(a), chips.read(b))
        if value >= MIN_LIKENESS:
            alike.append((value, a, b))
    alike.sort(key=lambda item: (-item[0], item[1:]))
    pairs = [Pair(first=chips.name(a), second=chips.name(b), detail=f"r = {r:.3f}") for r, a, b in alike]
    message = f"{len(pairs)} pairs between splits look alike (perceptual hash, then correlation of the pixels)"
    counts = _involved(chips, [(a, b) for _, a, b in alike])
    name, title = "near-duplicates", "Near-duplicates between splits"
    return _result(name, title, message, pairs, "report", counts, candidates=len(candidates))
