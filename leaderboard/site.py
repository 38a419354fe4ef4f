"""The leaderboard page: one static HTML file from result records, and the same figures as JSON and Parquet.

Records are data from strangers: they are validated, every string is escaped, the page's own script is the only one
that its content security policy allows, and nothing is loaded from the network. The same records give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..benchmark.records import RESULT_NAME, Result, read_result
from ..benchmark.tables import collect, rows
from ..datasets.files import write_atomic
from ..datasets.spec import canonical_json
from ..errors import FormatError
from . import charts, view
from .export import as_json, as_parquet

PAGE_NAME = "index.html"
MAX_PAGE_BYTES = 3_000_000
MAX_MAP_BYTES = 400_000
MAX_MAPS_PER_ROW = 3
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def build_site(records: str | Path | Sequence[str | Path], out: str | Path) -> Path:
    """Render the page and its data files.

    Args:
        records: folders (searched recursively) or files with result records; ``example*.png`` files beside a record
            are shown as its example maps where the data set's licence allows it.
        out: the folder to write ``index.html``, ``leaderboard.json`` and ``leaderboard.parquet`` to, or the path of
            the page (``*.html``), the data files then lie beside it.

    Returns:
        The path of the page.

    Raises:
        FormatError: a record is not acceptable (its file is named), records of one data set version disagree about its
            content, or the page would be too large.
    """
    paths = [Path(records)] if isinstance(records, (str, Path)) else [Path(p) for p in records]
    page = Path(out) if Path(out).suffix == ".html" else Path(out) / PAGE_NAME
    results = collect(paths)
    _check_content(results)
    found = view.sections(rows(results))
    html = _render(found, len(results), _find_maps(paths, found))
    write_atomic(page.with_name("leaderboard.json"), canonical_json(as_json(found)))
    write_atomic(page.with_name("leaderboard.parquet"), as_parquet(found))
    write_atomic(page, html)
    return page


def _check_content(results: Sequence[Result]) -> None:
    """One data set version is one content, task and set of classes, or its rows must not share a table."""
    seen: dict[tuple[str, str], Result] = {}
    for result in results:
        first = seen.setdefault((result.dataset.name, result.dataset.version), result)
        for what, a, b in (
            ("content_sha256", first.dataset.content_sha256, result.dataset.content_sha256),
            ("task", first.task, result.task),
            ("classes", [c.name for c in first.classes], [c.name for c in result.classes]),
        ):
            if a != b:
                raise FormatError(
                    f"records {first.id[:16]} and {result.id[:16]} differ in {what}: {a} and {b}",
                    where=f"{result.dataset.name} {result.dataset.version}",
                    hint="other data need another version",
                )


Maps = dict[str, list[tuple[str, bytes]]]  # by the table's anchor and the entry's: caption, PNG


def _find_maps(paths: Sequence[Path], found: Sequence[view.Section]) -> Maps:
    """The example maps of each entry of the main tables whose data may be shown: of the first seed that has any."""
    by_record: Maps = {}
    files = {png for path in paths for png in (path if path.is_dir() else path.parent).rglob("example*.png")}
    for folder in sorted({png.parent for png in files}):
        single = folder / RESULT_NAME
        records = [read_result(p) for p in ([single] if single.exists() else sorted(folder.glob("*.json")))]
        for record in records:
            mine = sorted(
                p
                for p in files
                if p.parent == folder and (len(records) == 1 or p.name.startswith(f"example-{record.dataset.split}-"))
            )
            by_record[record.id] = [(_caption(p, record.dataset.split), _read_png(p)) for p in mine]
    maps: Maps = {}
    for section in found:
        for entry in section.tables[0].entries if section.shows_maps else ():
            shown = next((by_record[r.id] for r in entry.row.results if by_record.get(r.id)), [])
            maps[entry.anchor] = shown[:MAX_MAPS_PER_ROW]
    return maps


def _caption(path: Path, split: str) -> str:
    name = path.stem.removeprefix("example").strip("-_ ").removeprefix(f"{split}-")
    if found := re.fullmatch(r"\d+-(worst|poor|median)-(.+)", name):
        name = f"{found[1]} chip: {found[2]}"
    return name[:100] or "example"


def _read_png(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_MAP_BYTES + 1)
    if not data.startswith(PNG_SIGNATURE) or len(data) > MAX_MAP_BYTES:
        raise FormatError(
            f"not a PNG of at most {MAX_MAP_BYTES} bytes",
            where=path,
            hint="write example maps with `tidemark evaluate --examples`",
        )
    return data


def _fit(maps: Maps, room: int) -> tuple[Maps, int]:
    """As many maps as fit into ``room`` bytes of HTML, the first of every entry before any second; how many do not."""
    kept: Maps = {anchor: [] for anchor in maps}
    left_out = 0
    for i in range(MAX_MAPS_PER_ROW):
        for anchor, items in maps.items():
            if i < len(items):
                size = len(items[i][1]) * 4 // 3 + 1000
                if size <= room:
                    kept[anchor].append(items[i])
                    room -= size
                else:
                    left_out += 1
    return kept, left_out


def _render(found: Sequence[view.Section], records: int, maps: Maps) -> bytes:
    bare = _html(found, records, {}, sum(map(len, maps.values())))
    if len(bare) > MAX_PAGE_BYTES:
        raise FormatError(
            f"the page would have {len(bare)} bytes, over the limit of {MAX_PAGE_BYTES}",
            hint="build a page per data set",
        )
    return _html(found, records, *_fit(maps, MAX_PAGE_BYTES - len(bare)))


def _html(found: Sequence[view.Section], records: int, maps: Maps, maps_left_out: int) -> bytes:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("tidemark.leaderboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "thousands": thousands,
        "count": count,
        "short": charts.short,
        "plain_json": plain_json,
        "unit_score": view.unit_score,
    }
    script = environment.loader.get_source(environment, "site.js")[0]

    def examples_of(table: view.Table) -> list[tuple[view.Entry, str, str]]:
        return [
            (entry, caption, base64.b64encode(png).decode())
            for entry in table.entries
            for caption, png in maps.get(entry.anchor, ())
        ]

    text = environment.get_template("site.html").render(
        sections=found,
        records=records,
        maps_left_out=maps_left_out,
        max_mb=MAX_PAGE_BYTES // 10**6,
        version=__version__,
        charts=charts,
        tasks=view.TASKS,
        compared=view.compared,
        examples_of=examples_of,
        min_units_interval=view.MIN_UNITS_FOR_INTERVAL,
        min_units_rank=view.MIN_UNITS_FOR_RANK,
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text.encode()


def figure(value: float | None, decimals: int = 3) -> str:
    """A figure with a fixed number of decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}"


def thousands(value: float) -> str:
    """Three significant digits below 1000 and whole numbers above, in groups of three."""
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:,.0f}".replace(",", "\u202f")


def count(value: int) -> str:
    """A parameter count: ``14.3 M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return str(value)


def plain_json(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
