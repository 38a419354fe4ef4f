"""A table as Markdown, LaTeX, HTML and on the console. Labels come from strangers: each renderer escapes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ..errors import InputError
from .tables import Table

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "†": r"\dag{}",
    "°": r"$^\circ$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def markdown(table: Table) -> str:
    """GitHub Markdown: title, table, notes; ends with a newline."""

    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(map(_markdown_text, cells)) + " |"

    rule = "|:--" * min(2, len(table.headings)) + "|--:" * max(0, len(table.headings) - 2) + "|"
    parts = [
        f"**{_markdown_text(table.title)}**",
        "",
        line(table.headings),
        rule,
        *map(line, table.cells),
        "",
        " ".join(map(_markdown_text, table.notes)),
    ]
    return "\n".join(parts) + "\n"


def latex(table: Table) -> str:
    """A ``tabular`` for the booktabs package, title and notes as comments; ends with a newline."""

    def line(cells: tuple[str, ...]) -> str:
        return " & ".join(map(_latex_text, cells)) + r" \\"

    layout = "ll" + "r" * (len(table.headings) - 2)
    body = [f"% {' '.join(text.split())}" for text in (table.title, *table.notes)]
    return (
        "\n".join(
            [
                *body,
                rf"\begin{{tabular}}{{{layout}}}",
                r"\toprule",
                line(table.headings),
                r"\midrule",
                *map(line, table.cells),
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )
        + "\n"
    )


def html(tables: Sequence[Table], title: str) -> str:
    """One self-contained page with all tables (great-tables); published rows are set off."""
    import pandas as pd
    from great_tables import GT, loc, style

    parts = []
    for number, table in enumerate(tables):
        keys = [str(i) for i in range(len(table.headings))]  # headings may repeat
        made = (
            GT(pd.DataFrame(table.cells, columns=keys), id=f"table{number}")
            .tab_header(title=table.title)
            .cols_label(dict(zip(keys, table.headings, strict=True)))
            .cols_align("left", columns=keys[:2])
            .cols_align("right", columns=keys[2:])
            .tab_options(table_font_names=["system-ui", "sans-serif"], table_font_size="14px")
        )
        ours = len(table.cells) - table.published
        made = made.tab_style(style.text(style="italic"), loc.body(rows=list(range(ours, len(table.cells)))))
        for note in table.notes:
            made = made.tab_source_note(note)
        parts.append(made.as_raw_html())
    head = f'<meta charset="utf-8"><title>{escape(title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def console(table: Table) -> RichTable:
    """A rich table for ``rich.print``, on its side: a column for each model, which fits a terminal."""
    from rich.table import Table as RichTable
    from rich.text import Text

    turned = list(zip(table.headings, *table.cells, strict=True))
    rich_table = RichTable(title=Text(table.title), caption=Text(" ".join(table.notes)))
    for i, heading in enumerate(turned[0]):
        rich_table.add_column(Text(heading), justify="left" if i == 0 else "right")
    for cells in turned[1:]:
        rich_table.add_row(*map(Text, cells))
    return rich_table


def replace_between_markers(text: str, name: str, content: str) -> str:
    """Put ``content`` between ``<!-- table:NAME -->`` and the next ``<!-- /table -->``.

    Raises:
        InputError: the markers are not there, once.
    """
    pattern = re.compile(rf"(<!-- table:{re.escape(name)} -->\n).*?(<!-- /table -->)", re.DOTALL)
    replaced, times = pattern.subn(lambda match: f"{match[1]}{content}{match[2]}", text)
    if times != 1:
        raise InputError(
            f"{times} places for the table {name!r}, expected one",
            hint=f"write <!-- table:{name} --> and <!-- /table --> on lines of their own",
        )
    return replaced


def _markdown_text(text: str) -> str:
    text = " ".join(text.split())
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
