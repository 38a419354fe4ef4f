"""The gallery of worst scenes: example maps that lie beside the records, as many as a page may hold."""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..benchmark.records import RESULT_NAME, read_result
from ..errors import FormatError
from .submission import SUBMISSION_NAME
from .view import Entry, Section, Table

MAX_MAP_BYTES = 400_000
MAX_MAP_SIDE = 4096  # pixels; a small file can unpack into gigabytes
MAX_MAPS_PER_ROW = 3
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
WORDS = {"worst": "worst scene", "poor": "poor scene", "median": "median scene"}


@dataclass(frozen=True)
class Map:
    """One example map: what it shows in words, and the PNG with its width and height."""

    caption: str
    png: bytes
    width: int
    height: int

    @property
    def data(self) -> str:
        """The PNG in base64."""
        return base64.b64encode(self.png).decode()

    @property
    def page_bytes(self) -> int:
        """What it adds to the page."""
        return len(self.png) * 4 // 3 + 1000


Maps = dict[str, list[Map]]  # by the entry's anchor


def find_maps(paths: Sequence[Path], found: Sequence[Section]) -> Maps:
    """The maps of each row of the main tables whose data may be shown: of the first seed that has any.

    Raises:
        FormatError: a file that is no PNG of a bearable size.
    """
    files = {png for path in paths for png in (path if path.is_dir() else path.parent).rglob("example*.png")}
    by_record: dict[str, list[Path]] = {}
    by_folder: dict[Path, list[Path]] = {}
    for folder in sorted({png.parent for png in files}):
        mine = sorted(png for png in files if png.parent == folder)
        if (folder / SUBMISSION_NAME).exists():
            by_folder[folder] = mine
            continue
        single = folder / RESULT_NAME
        records = [read_result(p) for p in ([single] if single.exists() else sorted(folder.glob("*.json")))]
        for record in records:
            prefix = f"example-{record.dataset.split}-"
            by_record[record.id] = [p for p in mine if len(records) == 1 or p.name.startswith(prefix)]
    maps: Maps = {}
    for section in found:
        for entry in section.main.entries if section.shows_maps else ():
            split = section.main.split
            own = [p for p in by_folder.get(entry.board.path, ()) if p.name.startswith(f"example-{split}-")]
            shown = own or next((by_record[r.id] for r in entry.row.results if by_record.get(r.id)), [])
            maps[entry.anchor] = [_read(p, entry, section.main) for p in shown[:MAX_MAPS_PER_ROW]]
    return maps


def fit(maps: Maps, room: int) -> tuple[Maps, int]:
    """As many maps as fit into ``room`` bytes of HTML, the first of every row before any second; how many do not."""
    kept: Maps = {anchor: [] for anchor in maps}
    left_out = 0
    for i in range(MAX_MAPS_PER_ROW):
        for anchor, items in maps.items():
            if i < len(items):
                if items[i].page_bytes <= room:
                    kept[anchor].append(items[i])
                    room -= items[i].page_bytes
                else:
                    left_out += 1
    return kept, left_out


def shown_for(table: Table, maps: Mapping[str, Sequence[Map]]) -> list[tuple[Entry, Sequence[Map]]]:
    """The rows of a table that have maps."""
    return [(entry, maps[entry.anchor]) for entry in table.entries if maps.get(entry.anchor)]


def _caption(path: Path, entry: Entry, table: Table) -> str:
    """``worst scene, S1SIM_012, water IoU 0.412: chip …``, as far as the file's name tells."""
    name = path.stem.removeprefix("example").strip("-_ ").removeprefix(f"{table.split}-")
    if not (parts := re.fullmatch(r"\d+-(worst|poor|median)-(?:(.+)~)?(.+)", name)):
        return name[:100] or "example"
    word, scene, chip = parts.groups()
    units = {safe_name(u.id): u for u in entry.row.units}
    text = WORDS[word]
    if scene in units:
        score = units[scene].scores.get(table.headline.key)
        text += f": {units[scene].id}"
        text += "" if score is None else f", {table.headline.title} {score:.{table.headline.decimals}f}"
    return f"{text[:200]}; chip {chip[:100]}"


def safe_name(text: str) -> str:
    """A scene's or chip's id as part of a file's name."""
    return re.sub("[^A-Za-z0-9._-]", "_", text)


def _read(path: Path, entry: Entry, table: Table) -> Map:
    with path.open("rb") as file:
        data = file.read(MAX_MAP_BYTES + 1)
    if not data.startswith(PNG_SIGNATURE + b"\0\0\0\rIHDR") or not 33 <= len(data) <= MAX_MAP_BYTES:
        what = f"not a PNG of at most {MAX_MAP_BYTES} bytes"
    else:
        width, height = struct.unpack(">II", data[16:24])
        if 0 < width <= MAX_MAP_SIDE and 0 < height <= MAX_MAP_SIDE:
            return Map(_caption(path, entry, table), data, width, height)
        what = f"a PNG of {width} x {height} pixels, at most {MAX_MAP_SIDE} a side are shown"
    raise FormatError(what, where=path, hint="write example maps with `tidemark evaluate --examples`")
