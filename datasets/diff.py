"""``tidemark diff``: what changed between two versions of a data set, chip by chip, and which records stay valid."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .reader import Shard, open_split
from .spec import Manifest, load_manifest

MAX_NAMED = 20


@dataclass(frozen=True)
class Difference:
    """Chips by id, label changes in pixels (or chips) by class names, and the splits whose scores still compare.

    ``pixels`` counts chips whose input arrays differ; ``labels`` maps "old → new" to a number; ``described`` names the
    fields of the manifest that differ (bands, classes, …).
    """

    name: str
    versions: tuple[str, str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    moved: dict[str, str] = field(default_factory=dict)
    pixels: tuple[str, ...] = ()
    geometry: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    labels: dict[str, int] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    same_splits: tuple[str, ...] = ()
    changed_splits: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Nothing that a score could notice."""
        return not (self.added or self.removed or self.moved or self.pixels or self.relabelled or self.described)

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def text(self) -> str:
        """Lines for people; also the entry of a data set's CHANGELOG, under its heading."""
        lines = []
        for what, chips in (
            ("added", self.added),
            ("removed", self.removed),
            ("with other pixels", self.pixels),
            ("with other labels", self.relabelled),
            ("at another place", self.geometry),
        ):
            if chips:
                lines.append(f"- {len(chips)} chips {what}: {_some(chips)}")
        for way, count in Counter(self.moved.values()).items():
            chips = [chip for chip, its in self.moved.items() if its == way]
            lines.append(f"- {count} chips moved, {way}: {_some(chips)}")
        for change, count in sorted(self.labels.items(), key=lambda item: -item[1]):
            lines.append(f"- label {change}: {count:,}")
        lines += [f"- other {what}" for what in self.described]
        if self.changed_splits:
            lines.append(f"- scores do not carry over: {', '.join(self.changed_splits)}")
        if self.same_splits:
            lines.append(f"- scores carry over, all of it is the same: {', '.join(self.same_splits)}")
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Chip:
    split: str
    shard: Shard
    number: int
    checksums: dict[str, int]
    geometry: tuple


def diff(old: str | Path, new: str | Path) -> Difference:
    """Compare two versions that lie on this disk; pixels are read only where label checksums differ.

    Raises:
        FormatError: one of them is not a whole data set.
    """
    before, after = load_manifest(old), load_manifest(new)
    a, b = _chips(old, before), _chips(new, after)
    common = [chip for chip in a if chip in b]
    label = before.label_array.name, after.label_array.name
    relabelled = [c for c in common if a[c].checksums[label[0]] != b[c].checksums[label[1]]]
    pixels = [c for c in common if _inputs(a[c], label[0]) != _inputs(b[c], label[1])]
    moved = {c: f"{a[c].split} → {b[c].split}" for c in common if a[c].split != b[c].split}
    labels: Counter[str] = Counter()
    if before.task.classes and after.task.classes:
        for chip in relabelled:
            labels += _label_changes(before, after, a[chip], b[chip])
    described = [
        field
        for field in ("task", "arrays", "licence", "known_label_defects", "provenance")
        if _differ(before, after, field)
    ]
    splits = dict.fromkeys([s.name for s in (*before.splits, *after.splits)])
    same = [s for s in splits if "task" not in described and _content(a, s) == _content(b, s)]
    return Difference(
        after.name,
        (before.version, after.version),
        tuple(c for c in b if c not in a),
        tuple(c for c in a if c not in b),
        moved,
        tuple(pixels),
        tuple(c for c in common if a[c].geometry != b[c].geometry),
        tuple(relabelled),
        dict(labels),
        tuple(described),
        tuple(same),
        tuple(s for s in splits if s not in same),
    )


def changelog_entry(found: Difference) -> str:
    """The entry of a data set's ``CHANGELOG.md`` for its newer version."""
    return f"## {found.versions[1]} (after {found.versions[0]})\n\n{found.text() if not found.same else '- no change'}"


def _chips(folder: str | Path, manifest: Manifest) -> dict[str, _Chip]:
    found = {}
    for split in manifest.splits:
        for shard in open_split(folder, split.name)[1]:
            layout = shard.open()
            names = [array.name for array in manifest.arrays]
            for i, chip in enumerate(shard.chip_ids):
                row = layout.rows[i]
                sums = {name: int(row[f"checksum_{name}"]) for name in names}
                place = (tuple(row["window"].tolist()), row["transform"].tobytes())
                found[chip] = _Chip(split.name, shard, i, sums, place)
    return found


def _inputs(chip: _Chip, label: str) -> dict[str, int]:
    return {name: value for name, value in chip.checksums.items() if name != label}


def _content(chips: dict[str, _Chip], split: str) -> dict[str, tuple]:
    return {c: (chip.checksums, chip.geometry) for c, chip in chips.items() if chip.split == split}


def _differ(before: Manifest, after: Manifest, field: str) -> bool:
    return getattr(before, field) != getattr(after, field)


def _label_changes(before: Manifest, after: Manifest, old: _Chip, new: _Chip) -> Counter[str]:
    """How many pixels (or chips) went from one class to another; a label array of another shape counts nothing."""
    a = old.shard.read(before.label_array.name, old.number)
    b = new.shard.read(after.label_array.name, new.number)
    if a.shape != b.shape:
        return Counter()
    pairs, counts = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1, return_counts=True)
    named = [{c.id: c.name for c in m.task.classes} | {m.task.ignore_index: "ignored"} for m in (before, after)]
    return Counter(
        {
            f"{named[0].get(int(x), int(x))} → {named[1].get(int(y), int(y))}": int(count)
            for (x, y), count in zip(pairs.T, counts, strict=True)
            if x != y
        }
    )


def _some(chips) -> str:
    chips = list(chips)
    more = f" and {len(chips) - MAX_NAMED} more" if len(chips) > MAX_NAMED else ""
    return ", ".join(chips[:MAX_NAMED]) + more
