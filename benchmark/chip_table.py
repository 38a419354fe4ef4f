"""``confusion.parquet``: what every chip adds to its unit, so that a record's sums can be taken apart."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..datasets.files import atomic_path
from .counting import UnitCounts

CONFUSION_NAME = "confusion.parquet"
ROWS = 1024  # written at a time


def write_confusion(path: str | Path, chips: Iterable[tuple[str, str, UnitCounts]]) -> int:
    """Write each chip's counts, atomically and in constant memory; returns the number of chips.

    Columns: ``chip_id``, ``unit``, ``abstained`` and, for class maps and patches, ``confusion`` (n * n int64, rows =
    truth, row by row) and ``boundary`` (4 int64, see ``boundary.boundary_counts``); for a harmonization each of
    ``reflectance.chip_sums`` as a list of float64.

    Args:
        path: the file to make.
        chips: chip id, unit id and counts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    done, writer = 0, None
    with atomic_path(path) as temporary:
        columns: dict[str, list] = {}
        try:
            for done, (chip_id, unit, counts) in enumerate(chips, 1):
                row = {"chip_id": chip_id, "unit": unit, "abstained": counts.abstained, **_arrays(counts)}
                if writer is None:
                    columns = {key: [] for key in row}
                    schema = pa.schema([(key, _type(value)) for key, value in row.items()])
                    writer = pq.ParquetWriter(temporary, schema, compression="zstd")
                for key, value in row.items():
                    columns[key].append(value)
                if done % ROWS == 0:
                    _flush(writer, columns)
            if columns and columns["unit"]:
                _flush(writer, columns)
        finally:
            if writer is not None:
                writer.close()
    return done


def _arrays(counts: UnitCounts) -> dict:
    if counts.sums:
        return counts.sums
    return {"confusion": counts.confusion.ravel(), "boundary": counts.boundary}


def _type(value: object):
    import pyarrow as pa

    if isinstance(value, str):
        return pa.string()
    return pa.int64() if isinstance(value, int) else pa.list_(pa.from_numpy_dtype(value.dtype), len(value))


def _flush(writer, columns: dict[str, list]) -> None:
    import pyarrow as pa

    arrays = [pa.array(columns[field.name], field.type) for field in writer.schema]
    writer.write_table(pa.table(arrays, schema=writer.schema))
    for values in columns.values():
        values.clear()
