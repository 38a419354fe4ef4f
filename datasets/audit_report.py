"""What an audit found, as data (JSON), as text, and as one HTML page with thumbnails of the offending chips."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image
from pydantic import Field

from ..errors import printable
from .files import write_atomic
from .reader import open_split
from .spec import Manifest, Split, Strict, canonical_json, load_manifest

MAX_PAIRS = 2000  # kept in the report of one check; ``found`` counts all
SHOWN_PAIRS = 24
TEXT_PAIRS = 10
THUMBNAIL_PX = 128

Status = Literal["pass", "fail", "report", "not-checkable"]


class Pair(Strict):
    """One chip, or two, as ``split/id``, and what is wrong. ``side``: where the second continues the first."""

    first: str
    second: str | None = None
    detail: str = ""
    side: Literal["top", "bottom", "left", "right"] | None = None


class Check(Strict):
    """One question to the data set and its answer."""

    name: str
    title: str
    status: Status
    message: str
    found: Annotated[int, Field(ge=0)] = 0
    chips: dict[str, int] = {}
    pairs: tuple[Pair, ...] = ()


class AuditReport(Strict):
    """All checks of one data set version."""

    dataset: str
    version: str
    title: str
    content_sha256: str
    simulated: bool
    splits: tuple[Split, ...]
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == "fail")

    @property
    def passed(self) -> bool:
        """True when no check failed."""
        return not self.failed

    def check(self, name: str) -> Check:
        """One check by name."""
        return next(check for check in self.checks if check.name == name)

    def text(self) -> str:
        """The report for a terminal: one line a check, and the first offending pairs."""
        lines = [f"Audit of {self.dataset} {self.version} ({self.content_sha256[:12]})"]
        lines += [f"  {s.name}: {s.chips} chips, {s.scenes} scenes, {_classes(s)}" for s in self.splits]
        for check in self.checks:
            lines.append(f"{check.status.upper():14}{check.title}: {check.message}")
            for pair in check.pairs[:TEXT_PAIRS]:
                second = f" | {pair.second}" if pair.second else ""
                lines.append(f"{'':16}{pair.first}{second}  {pair.detail}".rstrip())
            if check.found > TEXT_PAIRS:
                lines.append(f"{'':16}… {check.found} in all")
        lines.append("PASSED" if self.passed else f"FAILED: {', '.join(check.name for check in self.failed)}")
        return "\n".join(map(printable, lines)) + "\n"


def _classes(split: Split) -> str:
    total = max(1, sum(split.classes.values()))
    shares = ", ".join(f"{name} {100 * count / total:.1f} %" for name, count in split.classes.items())
    return shares or "no classes"


def write_report(report: AuditReport, folder: str | Path, out_html: str | Path) -> Path:
    """Write ``out_html`` (self-contained), and beside it the same as ``.json`` and ``.txt``.

    Args:
        report: of ``audit``.
        folder: the data set, for the thumbnails.
        out_html: path of the page; the other two take its name.
    """
    out = Path(out_html)
    write_atomic(out.with_suffix(".json"), canonical_json(report))
    write_atomic(out.with_suffix(".txt"), report.text())
    environment = Environment(loader=PackageLoader(__package__, "templates"), autoescape=True, trim_blocks=True)
    pictures = _pictures(report, Path(folder))
    page = environment.get_template("audit.html").render(
        report=report, pictures=pictures, shown=SHOWN_PAIRS, shares={s.name: _classes(s) for s in report.splits}
    )
    write_atomic(out, page)
    return out


def _pictures(report: AuditReport, folder: Path) -> dict[str, list[str]]:
    """Check name -> data URLs of its first pairs."""
    wanted = {p for c in report.checks for pair in c.pairs[:SHOWN_PAIRS] for p in (pair.first, pair.second) if p}
    images = _read(folder, wanted)
    manifest = load_manifest(folder)
    pictures = {}
    for check in report.checks:
        urls = []
        for pair in check.pairs[:SHOWN_PAIRS]:
            chips = [images[name] for name in (pair.first, pair.second) if name in images]
            urls.append(_data_url(_montage([_grey(chip, manifest) for chip in chips], pair.side)) if chips else "")
        pictures[check.name] = urls
    return pictures


def _read(folder: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """``split/id`` -> image in its native dtype, of those that exist."""
    found, wanted = {}, set(names)
    known = {split.name for split in load_manifest(folder).splits}
    for split in sorted(known & {name.partition("/")[0] for name in wanted}):
        manifest, shards = open_split(folder, split)
        image = next(a.name for a in manifest.arrays if a.role == "image")
        for shard in shards:
            for i, chip in enumerate(shard.chip_ids):
                if f"{split}/{chip}" in wanted:
                    found[f"{split}/{chip}"] = shard.read(image, i)
    return found


def _grey(image: np.ndarray, manifest: Manifest) -> np.ndarray:
    """uint8 (H, W): the last band up to the second, stretched between its own 2nd and 98th percentile."""
    band = np.asarray(image[min(1, len(image) - 1)], np.float32)
    finite = np.isfinite(band)
    if not finite.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(band[finite], [2, 98])
    scaled = (np.where(finite, band, low) - low) / (high - low if high > low else 1)
    return (255 * scaled.clip(0, 1)).astype(np.uint8)


def _montage(chips: list[np.ndarray], side: str | None) -> np.ndarray:
    """Two chips placed as they would lie on the ground, without a gap; else side by side with one."""
    if len(chips) < 2:
        return chips[0]
    first, second = chips
    if side in ("left", "top"):
        first, second = second, first
    if side in ("top", "bottom"):
        return np.concatenate([first, second], axis=0)
    gap = [] if side else [np.full((len(first), max(2, first.shape[1] // 16)), 255, np.uint8)]
    return np.concatenate([first, *gap, second], axis=1)


def _data_url(picture: np.ndarray) -> str:
    image = Image.fromarray(picture)
    scale = 2 * THUMBNAIL_PX / max(picture.shape)
    size = tuple(max(1, round(n * scale)) for n in image.size)
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BILINEAR).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
