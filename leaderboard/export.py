"""The figures of the page as data: one JSON document and one long Parquet table."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator, Sequence
from typing import Any

from ..benchmark.tables import Cell
from .networks import Network
from .ranking import Standing
from .view import Entry, Section, Table


def as_json(
    sections: Sequence[Section], standings: Sequence[Standing] = (), networks: Sequence[Network] = ()
) -> dict[str, Any]:
    """All tables with every metric, unit and record id, the standings over the suite, what networks cost: as JSON."""
    return {
        "schema_version": "1.2",
        "networks": [
            {"label": n.label, "model": n.record.model, "arguments": n.record.arguments, "chip": list(n.record.chip)}
            | n.row.model_dump(mode="json")
            for n in networks
        ],
        "tables": [_table(s, t) for s in sections for t in s.tables],
        "standings": [
            {"team": s.team, "model": s.model, "skills": s.skills, "tasks": s.tasks, "mean": s.mean} for s in standings
        ],
    }


def _table(section: Section, table: Table) -> dict[str, Any]:
    first = table.all_entries[0].row.dataset
    return {
        "dataset": section.name,
        "version": section.version,
        "title": section.title,
        "split": table.split,
        "task": table.task,
        "simulated": section.simulated,
        "leaky": table.leaky,
        "licence": section.licence,
        "content_sha256": first.content_sha256,
        "manifest_sha256": first.manifest_sha256,
        "headline": table.headline.key,
        "best_trivial": table.floor,
        "ranked": table.ranked,
        "rows": [_row(e) for e in table.entries],
        "claimed": [_row(e) for e in table.claimed],
        "published": None if table.published is None else table.published.model_dump(mode="json"),
    }


def _row(entry: Entry) -> dict[str, Any]:
    row, submission = entry.row, entry.board.submission
    return {
        "order": entry.order,
        "rank": entry.rank,
        "key": row.key,
        "tier": entry.tier,
        "team": entry.board.team,
        "submission": None if submission is None else submission.model_dump(mode="json", exclude={"runs"}),
        "trivial": entry.trivial,
        "skill": entry.placed.skill,
        "label": row.label,
        "model": row.model.model_dump(mode="json"),
        "seeds": list(row.seeds),
        "metrics": {key: _cell(cell) for key, cell in row.metrics.items()},
        "units": [dataclasses.asdict(unit) for unit in row.units],
        "speed": None if entry.speed is None else entry.speed.model_dump(mode="json"),
        "speed_measured_here": entry.board.house,
        "records": [
            {
                "id": r.id,
                "seed": r.seed,
                "predictions_sha256": r.predictions_sha256,
                "weights_sha256": r.model.weights_sha256,
                "harness": r.harness.model_dump(mode="json"),
                "packages": r.packages,
                "command": r.command,
                "device": r.device,
                "config": r.config,
                "config_hash": r.config_hash,
                "note": r.note,
            }
            for r in row.results
        ],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    interval = None if cell.interval is None else cell.interval.model_dump(mode="json")
    return {"mean": cell.mean, "sd": cell.sd, "interval": interval}


def as_parquet(sections: Sequence[Section]) -> bytes:
    """One line per table row and metric, so that the columns are the same for every task."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, real, whole, flag = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    schema = pa.schema(
        [
            ("dataset", text),
            ("version", text),
            ("split", text),
            ("task", text),
            ("simulated", flag),
            ("leaky", flag),
            ("content_sha256", text),
            ("model", text),
            ("label", text),
            ("trivial", flag),
            ("team", text),
            ("tier", text),
            ("submission", text),
            ("key", text),
            ("order", whole),
            ("rank", whole),
            ("skill", real),
            ("parameters", whole),
            ("seeds", pa.list_(whole)),
            ("units", whole),
            ("metric", text),
            ("headline", flag),
            ("mean", real),
            ("sd", real),
            ("low", real),
            ("high", real),
            ("interval_method", text),
            ("chips_per_s", real),
            ("mpx_per_s", real),
            ("device", text),
            ("threads", whole),
            ("precision", text),
            ("batch", whole),
            ("records", pa.list_(text)),
        ]
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(_lines(sections)), schema), buffer, compression="zstd")
    return buffer.getvalue()


def _lines(sections: Sequence[Section]) -> Iterator[dict[str, Any]]:
    for section in sections:
        for table in section.tables:
            for entry in table.all_entries:
                row, speed = entry.row, entry.speed
                for key, cell in row.metrics.items():
                    interval = cell.interval
                    yield {
                        "dataset": section.name,
                        "version": section.version,
                        "split": table.split,
                        "task": table.task,
                        "simulated": section.simulated,
                        "leaky": table.leaky,
                        "content_sha256": row.dataset.content_sha256,
                        "model": row.model.name,
                        "label": row.label,
                        "trivial": entry.trivial,
                        "team": entry.board.team,
                        "tier": entry.tier,
                        "submission": None if entry.board.house else entry.board.id,
                        "key": row.key,
                        "order": entry.order,
                        "rank": entry.rank,
                        "skill": entry.placed.skill,
                        "parameters": row.model.parameters,
                        "seeds": list(row.seeds),
                        "units": len(row.units),
                        "metric": key,
                        "headline": key == table.headline.key,
                        "mean": cell.mean,
                        "sd": cell.sd,
                        "low": interval and interval.low,
                        "high": interval and interval.high,
                        "interval_method": interval and interval.method,
                        **(
                            {}
                            if speed is None
                            else speed.model_dump(
                                include={"chips_per_s", "mpx_per_s", "device", "threads", "precision", "batch"}
                            )
                        ),
                        "records": [r.id for r in row.results],
                    }
