"""The model card: ``README.md`` beside the weights, with the header that Hugging Face reads."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import yaml

PIPELINES = {"segmentation": "image-segmentation", "classification": "image-classification"}
NORMALIZATIONS = {
    "manifest": "(x − mean) / std with the numbers below, from the training split",
    "per_chip": "each channel of each chip to mean 0 and standard deviation 1 over its valid pixels",
    "none": "none: the network sees physical units",
}


def model_card(config: Mapping[str, Any], card: Mapping[str, Any], parameters: int) -> str:
    """Markdown with a YAML header.

    Args:
        config: the weights' ``config.json``.
        card: as in ``weights.save_pretrained``.
        parameters: trainable and fixed numbers of the model.
    """
    dataset = config["dataset"]
    named = f"{dataset['name']} {dataset['version']}" if dataset else "unknown"
    title = f"{config['model']} for {named}"
    classes = ", ".join(f"{c['id']} = {_plain(c['name'])}" for c in config["classes"])
    sections = [
        f"# {_plain(title)}",
        f"A `{config['model']}` with {parameters:,} parameters for {config['task_kind']}, made with Tidemark. "
        f"Classes: {classes}.",
        _usage(),
        "## Input\n\n" + _bands(config["preprocess"]),
        "## Training data\n\n" + _data(dataset),
        "## Scores\n\n" + _scores(card.get("scores", {})),
        f"## Licence\n\n{_plain(card.get('licence') or 'Not stated.')}",
    ]
    if card.get("training"):
        sections.append(f"## Recipe\n\n```yaml\n{card['training'].strip().replace('```', '')}\n```")
    return f"---\n{yaml.safe_dump(_header(config, card), sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"


def _header(config: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    licence = card.get("licence")
    header: dict[str, Any] = {"library_name": "tidemark"}
    header |= (
        {"license": licence.lower()}
        if licence in ("MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0")
        else {"license": "other", "license_name": licence or "not-stated"}
    )
    pipeline = PIPELINES[config["task_kind"]]
    header |= {"pipeline_tag": pipeline, "tags": ["tidemark", "earth-observation", config["model"]]}
    results = [
        {
            "task": {"type": pipeline},
            "dataset": {
                "type": config["dataset"]["name"],
                "name": config["dataset"]["name"],
                "split": split,
                "revision": config["dataset"]["version"],
            },
            "metrics": [{"type": name, "value": value} for name, value in scores.items() if value is not None],
        }
        for split, scores in card.get("scores", {}).items()
        if config["dataset"]
    ]
    return header | ({"model-index": [{"name": config["model"], "results": results}]} if results else {})


def _usage() -> str:
    return (
        "```python\nfrom tidemark.models.weights import from_pretrained\n\n"
        'pretrained = from_pretrained("this folder or repository")\n'
        "x, valid = pretrained.preprocess(stored)  # (B, C, H, W) in the order of the table below\n"
        "logits = pretrained.model(image=x)\n```"
    )


def _bands(preprocess: Mapping[str, Any]) -> str:
    rows = ["| band | sensor | unit | scale | offset | nodata |", "|---|---|---|---|---|---|"]
    rows += [
        "| " + " | ".join(_plain(band[key]) for key in ("name", "sensor", "unit", "scale", "offset", "nodata")) + " |"
        for band in preprocess["bands"]
    ]
    channels = [*preprocess["select"], *preprocess["derived"]]
    rows += [
        "",
        f"Channels of the network: {', '.join(map(_plain, channels))}. "
        f"Normalisation: {NORMALIZATIONS[preprocess['normalization']]}.",
    ]
    if preprocess["mean"] is not None:
        rows += ["", "| channel | mean | std |", "|---|---|---|"]
        rows += [
            f"| {_plain(name)} | {mean:.6g} | {std:.6g} |"
            for name, mean, std in zip(channels, preprocess["mean"], preprocess["std"], strict=True)
        ]
    return "\n".join(rows)


def _data(dataset: Mapping[str, Any]) -> str:
    if not dataset:
        return "Not recorded."
    text = (
        f"{_plain(dataset.get('title', dataset['name']))}, version {dataset['version']} (content "
        f"`{dataset['content_sha256']}`), licence: {_plain(dataset.get('licence') or 'not stated')}."
    )
    return text + (" **These data are simulated.**" if dataset.get("simulated") else "")


def _scores(scores: Mapping[str, Mapping[str, float | None]]) -> str:
    rows = ["| split | metric | value |", "|---|---|---|"]
    rows += [
        f"| {_plain(split)} | {_plain(name)} | {'' if value is None else f'{value:.4f}'} |"
        for split, metrics in scores.items()
        for name, value in metrics.items()
    ]
    return "\n".join(rows) if len(rows) > 2 else "None recorded."


def _plain(value: object) -> str:
    """Text that can neither end a table cell nor become markup."""
    return html.escape("" if value is None else str(value), quote=False).replace("|", "\\|").replace("\n", " ")
