"""The data card (``README.md`` with Hugging Face's YAML header), generated from the manifest alone."""

from __future__ import annotations

import yaml

from .licences import licence_header
from .spec import Manifest
from .split_map import MAP_NAME

_TASKS = {
    "segmentation": "image-segmentation",
    "classification": "image-classification",
    "regression": "image-to-image",
}


def data_card(manifest: Manifest) -> str:
    """Markdown text; the same manifest gives the same bytes."""
    chips = sum(s.chips for s in manifest.splits)
    size = next(word for limit, word in _SIZES if chips < limit)
    tags = ["tidemark", "hdf5", "remote-sensing", "earth-observation", *(["simulated"] if manifest.simulated else [])]
    front = {
        "pretty_name": manifest.title,
        **licence_header(manifest.licence),
        "task_categories": [_TASKS[manifest.task.kind]],
        "size_categories": [size],
        "tags": tags,
    }
    header = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    parts = [f"---\n{header}---\n\n# {manifest.title}\n"]
    if manifest.simulated:
        parts.append("> **Simulated.** No pixel of this data set was measured by a satellite.\n")
    parts.append(f"{manifest.description}\n")
    parts.append(_facts(manifest))
    parts.append("## Arrays\n\n" + _table(("array", "dtype", "shape of a chip", "role"), _array_rows(manifest)))
    parts.append("## Bands\n\n" + _table(_BAND_HEAD, _band_rows(manifest)))
    if manifest.task.classes:
        ignore = f" Label {manifest.task.ignore_index} is ignored." if manifest.task.kind == "segmentation" else ""
        named = ", ".join(f"{c.id} = {c.name}" for c in manifest.task.classes)
        parts.append(f"## Classes\n\n{named}.{ignore}\n")
    parts.append("## Splits\n\n" + _table(("split", "chips", "scenes", "labels"), _split_rows(manifest)))
    parts.append(_map(manifest))
    parts.append(f"## Provenance\n\n{manifest.provenance}\n")
    parts.append(f"## Known label defects\n\n{manifest.known_label_defects}\n")
    if manifest.skipped:
        rows = [(s.id, s.reason) for s in manifest.skipped]
        parts.append("## Scenes left out\n\n" + _table(("scene", "reason"), rows))
    if manifest.citation:
        parts.append(f"## Citation\n\n{manifest.citation}\n")
    parts.append(_use(manifest))
    return "\n".join(parts)


_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**18, "n>1M"))
_BAND_HEAD = ("array", "band", "sensor", "unit", "nodata", "mean", "sd", "2 %", "98 %")


def _map(manifest: Manifest) -> str:
    placed = sum(scene.bounds is not None for scene in manifest.scenes)
    if not placed:
        return "There is no map of the splits: the source does not say where its scenes lie.\n"
    return f"![The splits on a map: bounds of {placed} of {len(manifest.scenes)} scenes]({MAP_NAME})\n"


def _facts(manifest: Manifest) -> str:
    facts = (
        ("version", manifest.version),
        ("content sha256", f"`{manifest.content_sha256}`"),
        ("licence", manifest.licence or "not stated by the source"),
        ("homepage", manifest.homepage or "none"),
        ("builder", f"{manifest.builder.name} {manifest.builder.version}, parameters `{manifest.builder.parameters}`"),
        ("codec", manifest.codec),
    )
    return _table(("", ""), facts)


def _array_rows(manifest: Manifest) -> list[tuple]:
    return [(a.name, a.dtype, " × ".join(map(str, a.shape)) or "one value", a.role) for a in manifest.arrays]


def _band_rows(manifest: Manifest) -> list[tuple]:
    statistics = {(s.array, s.band): s for s in manifest.statistics}
    rows = []
    for array in manifest.arrays:
        for band in array.bands:
            s = statistics.get((array.name, band.name))
            values = ["" if v is None else f"{v:.4g}" for v in (s.mean, s.std, s.p02, s.p98)] if s else [""] * 4
            nodata = "none" if band.nodata is None else f"{band.nodata:g}"
            rows.append((array.name, band.name, band.sensor, band.unit, nodata, *values))
    return rows


def _split_rows(manifest: Manifest) -> list[tuple]:
    rows = []
    for split in manifest.splits:
        total = sum(split.classes.values()) or 1
        shares = ", ".join(f"{name} {100 * n / total:.1f} %" for name, n in split.classes.items())
        rows.append((split.name, split.chips, split.scenes, shares))
    return rows


def _table(head: tuple, rows) -> str:
    lines = ["| " + " | ".join(_cell(c) for c in row) + " |" for row in (head, *rows)]
    lines.insert(1, "|" + " --- |" * len(head))
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _use(manifest: Manifest) -> str:
    return (
        "## Use\n\n```python\nfrom tidemark import ChipDataset\n\n"
        f'chips = ChipDataset("data/{manifest.name}/{manifest.version}", split="train")\nsample = chips[0]\n```\n\n'
        "The shards are plain HDF5: `import h5py, hdf5plugin` opens them too.\n"
    )
