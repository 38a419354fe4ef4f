"""The leaderboard page: one static HTML file from board entries, and the same figures as JSON and Parquet.

Records are data from strangers: they are validated, every string is escaped, the page's own script is the only one
that its content security policy allows, and nothing is loaded from the network. The same records give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..benchmark.records import Result
from ..benchmark.uncertainty import MIN_UNITS, MIN_UNITS_RANK
from ..datasets.files import write_atomic
from ..datasets.spec import canonical_json
from ..errors import FormatError
from . import charts, explore, gallery, view
from .arrange import by_task, sections
from .entries import load_entries
from .export import as_json, as_parquet
from .networks import Network, by_place, load_networks
from .ranking import Standing, board_tables, current, standings
from .skill import is_trivial

PAGE_NAME = "index.html"
DATA_NAMES = ("leaderboard.json", "leaderboard.parquet")
MAX_PAGE_BYTES = 3_000_000


@dataclass(frozen=True)
class Detail:
    """How much of each row's evidence is on the page; the JSON file always holds all of it.

    ``words``: whether a row that was verified has its commands, notes and other words whole; a claimed one never has.
    ``claims``: claimed rows of a table, the first by headline.
    """

    units: int = 60
    config: bool = True
    words: bool = True
    claims: int = 100

    @property
    def shortened(self) -> bool:
        """Whether something of a row is left out."""
        return replace(self, claims=Detail.claims) != Detail()


@dataclass(frozen=True)
class Board:
    """What is rendered: sections, the standings over the suite, and how many records they come from."""

    sections: Sequence[view.Section]
    standings: Sequence[Standing]
    records: int
    networks: Sequence[Network] = ()


DETAILS = (  # the first that fits is taken
    Detail(),
    Detail(claims=10),
    Detail(15, claims=10),
    Detail(15, config=False, claims=10),
    Detail(0, config=False, claims=10),
    Detail(0, config=False, words=False, claims=1),
)


def build_site(records: str | Path | Sequence[str | Path], out: str | Path, speeds: str | Path | None = None) -> Path:
    """Render the page and its data files.

    Args:
        records: folders (searched recursively) or files with submissions and result records; ``example*.png`` files
            beside them are shown as worst scenes where the data set's licence allows it.
        out: the folder to write ``index.html``, ``leaderboard.json`` and ``leaderboard.parquet`` to, or the path of
            the page (``*.html``), the data files then lie beside it.
        speeds: folder of records of ``tidemark bench model``, shown as what the networks alone cost; None: nothing.

    Returns:
        The path of the page.

    Raises:
        FormatError: a record is not acceptable (its file is named), records of one data set version disagree about its
            content, or the page would be too large.
    """
    paths = [Path(records)] if isinstance(records, (str, Path)) else [Path(p) for p in records]
    page = Path(out) if Path(out).suffix == ".html" else Path(out) / PAGE_NAME
    entries = current(load_entries(paths))
    results = [result for entry in entries for result in entry.results]
    _check_content(results)
    tables = board_tables(entries)
    networks = [] if speeds is None else load_networks(speeds)
    found = sections(tables, networks)
    board = Board(found, standings(tables), len(results), networks)
    html = _render(board, gallery.find_maps(paths, found))
    write_atomic(page.with_name(DATA_NAMES[0]), canonical_json(as_json(found, board.standings, networks)))
    write_atomic(page.with_name(DATA_NAMES[1]), as_parquet(found))
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
            ("bands", first.bands, result.bands),
        ):
            if a != b:
                raise FormatError(
                    f"records {first.id[:16]} and {result.id[:16]} differ in {what}: {a} and {b}",
                    where=f"{result.dataset.name} {result.dataset.version}",
                    hint="other data need another version",
                )


def _render(board: Board, maps: gallery.Maps) -> bytes:
    for detail in DETAILS:
        bare = _html(board, {}, sum(map(len, maps.values())), detail)
        if len(bare) <= MAX_PAGE_BYTES:
            return _html(board, *gallery.fit(maps, MAX_PAGE_BYTES - len(bare)), detail)
    raise FormatError(
        f"the page would have {len(bare)} bytes, over the limit of {MAX_PAGE_BYTES}", hint="build a page per data set"
    )


def _html(board: Board, maps: gallery.Maps, maps_left_out: int, detail: Detail) -> bytes:
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
    shown = [view.with_claims(section, detail.claims) for section in board.sections]
    script = environment.loader.get_source(environment, "site.js")[0]
    text = environment.get_template("site.html").render(
        by_task=by_task(shown),
        standings=[s for s in board.standings if not all(map(is_trivial, s.entries))],
        networks=by_place(board.networks),
        records=board.records,
        maps_left_out=maps_left_out,
        max_mb=MAX_PAGE_BYTES // 10**6,
        detail=detail,
        version=__version__,
        charts=charts,
        tasks=view.TASKS,
        compared=explore.compared,
        separation=explore.separation,
        maps_of=lambda table: gallery.shown_for(table, maps),
        stated_speed=lambda table: any(e.speed and not e.board.house for e in table.all_entries),
        min_units_interval=MIN_UNITS,
        min_units_rank=MIN_UNITS_RANK,
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return text.encode()


def figure(value: float | None, decimals: int = 3) -> str:
    """A figure with a fixed number of decimals, a dash where there is none."""
    return "–" if value is None else f"{value:.{decimals}f}".replace("-", "−")


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
