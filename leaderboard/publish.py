"""The leaderboard as a Hugging Face static Space: a folder to upload, nothing that runs; and scores in model cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..benchmark.records import HEADLINE, Result, read_result
from ..datasets.files import write_atomic
from ..errors import FormatError, InputError
from .site import DATA_NAMES, PAGE_NAME, build_site

README_NAME = "README.md"
TITLE = "Tidemark leaderboard"
SHORT = "Water, ice and reflectance from satellites"  # the Hub shows at most 60 characters
MAX_README_BYTES = 1 << 20
CARD_METRICS = ("iou", "mean_iou", "macro_f1", "psnr", "f1", "precision", "recall", "accuracy", "ssim", "sam", "rmse")


def publish(records: str | Path | Sequence[str | Path], out: str | Path, speeds: str | Path | None = None) -> Path:
    """Write the page, its data files and a ``README.md`` whose header makes the folder a static Space.

    Args:
        records, speeds: as in ``build_site``.
        out: a new folder, an empty one, or one that this function wrote before.

    Returns:
        The folder. Upload it with ``hf upload OWNER/NAME FOLDER --repo-type space``.

    Raises:
        InputError: the folder holds a README that is not a static Space's.
        FormatError: as in ``build_site``.
    """
    out = Path(out)
    _check_replaceable(out / README_NAME)
    build_site(records, out, speeds)
    tables = json.loads((out / DATA_NAMES[0]).read_text(encoding="utf-8"))["tables"]
    write_atomic(out / README_NAME, space_card(tables).encode())
    return out


def space_card(tables: Sequence[dict]) -> str:
    """``README.md`` of the Space: the header that the Hub reads, and what the files are.

    Args:
        tables: as ``leaderboard.json`` has them.
    """
    from huggingface_hub import SpaceCardData

    header = SpaceCardData(
        title=TITLE,
        emoji="🌊",
        colorFrom="blue",
        colorTo="gray",
        sdk="static",
        app_file=PAGE_NAME,
        pinned=False,
        license="mit",
        short_description=SHORT,
        tags=["leaderboard", "earth-observation", "remote-sensing", *sorted({t["task"] for t in tables})],
    )
    shown = "\n".join(
        f"| {t['dataset']} {t['version']} | {t['split']} | {t['task']} | {len(t['rows'])} |" for t in tables
    )
    page, parquet = DATA_NAMES
    return f"""---
{header.to_yaml(line_break=chr(10))}
---

# {TITLE}

`{PAGE_NAME}` is the whole page: one file that loads nothing from the network and works without JavaScript.
`{page}` and `{parquet}` hold the same figures as data. Made by Tidemark {__version__} with
`tidemark leaderboard publish`; edit the records, not these files. How to submit a model: `leaderboard/SUBMIT.md` in
Tidemark's repository.

| data set | split | task | rows |
|---|---|---|---|
{shown}
"""


def _check_replaceable(readme: Path) -> None:
    import yaml
    from huggingface_hub import metadata_load

    if not readme.exists():
        return
    try:
        header = metadata_load(readme) if readme.stat().st_size <= MAX_README_BYTES else None
    except (OSError, ValueError, yaml.YAMLError):
        header = None
    if not header or header.get("sdk") != "static":
        raise InputError(
            "not the README of a static Space, so it is not replaced", where=readme, hint="name a new folder"
        )


def score_card(weights: str | Path, records: Sequence[str | Path]) -> Path:
    """Enter the scores of records into the model card beside the weights they were made with.

    Args:
        weights: a folder of weights (or a run's, with ``weights/`` in it).
        records: result records of these very weights.

    Returns:
        The path of the card.

    Raises:
        FormatError: a record of other weights, or weights or a card that cannot be read.
    """
    from ..models.card import add_scores, eval_results
    from ..models.weights import CARD_NAME, from_pretrained

    folder = Path(weights) / "weights" if (Path(weights) / "weights").is_dir() else Path(weights)
    pretrained, found = from_pretrained(folder), []
    for path in records:
        record = read_result(path)
        if record.model.weights_sha256 != pretrained.weights_sha256:
            raise FormatError(
                f"scores weights {str(record.model.weights_sha256)[:16]}…, these are {pretrained.weights_sha256[:16]}…",
                where=path,
                hint="evaluate these weights",
            )
        data = {"name": record.dataset.name, "version": record.dataset.version, "title": record.dataset.title}
        split = record.dataset.split
        found += eval_results(pretrained.task_kind, data, {split: _figures(record)}, {split: _intervals(record)})
    add_scores(folder / CARD_NAME, found)
    return folder / CARD_NAME


def _figures(record: Result) -> dict[str, float | None]:
    keys = sorted(CARD_METRICS, key=lambda key: key != HEADLINE[record.task])
    return {key: record.metrics[key].value for key in keys if key in record.metrics}


def _intervals(record: Result) -> dict[str, tuple[float, float]]:
    known = {key: record.metrics[key].interval for key in CARD_METRICS if key in record.metrics}
    return {key: (interval.low, interval.high) for key, interval in known.items() if interval is not None}
