"""The model card: ``README.md`` beside the weights, with the header that Hugging Face reads."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..datasets.files import write_atomic
from ..datasets.licences import licence_header
from ..errors import FormatError

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MAX_CARD_BYTES = 1 << 20
SCORES_TITLE = "## Scores\n\n"
PIPELINES = {
    "segmentation": "image-segmentation",
    "classification": "image-classification",
    "regression": "image-to-image",
}
HARMONIZATION_USAGE = (
    "```python\nfrom tidemark.models.harmonization.inference import HarmonizationInference\n"
    "from tidemark.models.weights import from_pretrained\n\n"
    'infer = HarmonizationInference(from_pretrained("this folder or repository"))\n'
    "# stored values in, float32 (B, C, H, W) reflectance out\n"
    "reflectance = infer(image, pan, grid_image, grid_pan, (height, width))\n```\n\n"
    "`grid_image` and `grid_pan` come from `tidemark.datasets.grids.grid_between`."
)
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
    results = eval_results(config["task_kind"], dataset, card.get("scores", {}))
    sections = [
        f"# {_plain(title)}",
        f"A `{config['model']}` with {parameters:,} parameters for {config['task_kind']}, made with Tidemark."
        + (f" Classes: {classes}." if classes else ""),
        _usage(config["in_channels"]) if not config.get("harmonization") else HARMONIZATION_USAGE,
        "## Input\n\n" + _bands(config["preprocess"]),
        "## Training data\n\n" + _data(dataset),
        SCORES_TITLE + _scores(results),
        "## Limits\n\n" + _limits(dataset) + (f" {_plain(card['remarks'])}" if card.get("remarks") else ""),
        f"## Licence\n\n{_plain(card.get('licence') or 'Not stated.')}",
    ]
    if config.get("harmonization"):
        sections.insert(4, _harmonization(config["harmonization"]))
    if config.get("calibration"):
        sections.insert(-1, "## Calibration\n\n" + _calibration(config["calibration"]))
    if card.get("training"):
        sections.append(f"## Recipe\n\n```yaml\n{card['training'].strip().replace('```', '')}\n```")
    header = _header(config, card, results)
    return f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"


def eval_results(
    task_kind: str,
    dataset: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, float | None]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
) -> list[EvalResult]:
    """Scores as Hugging Face's ``EvalResult``s, those that are known.

    Args:
        task_kind: "segmentation", "classification" or "regression".
        dataset: name, version and, where known, title; without a name there is nothing to state scores of.
        scores: by split and metric.
        intervals: 95 % intervals, low and high, by split and metric, where there are any.
    """
    from huggingface_hub import EvalResult

    known = intervals or {}

    return [
        EvalResult(
            task_type=PIPELINES[task_kind],
            dataset_type=dataset["name"],
            dataset_name=dataset.get("title") or dataset["name"],
            dataset_split=split,
            dataset_revision=dataset["version"],
            metric_type=metric,
            metric_value=value,
            metric_args={"interval_95": list(bounds)} if (bounds := known.get(split, {}).get(metric)) else None,
        )
        for split, by_metric in scores.items()
        for metric, value in by_metric.items()
        if dataset and value is not None
    ]


def add_scores(path: str | Path, found: Sequence[EvalResult]) -> None:
    """Enter scores into a model card: into its ``model-index`` and the table that people read.

    A score of the same task, data, split and metric is replaced; the rest of the card stays as it is.

    Raises:
        FormatError: the card is missing, or its header is not one that Hugging Face reads.
    """
    from huggingface_hub import ModelCard

    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CARD_BYTES).decode()
        card = ModelCard(text)
    except OSError as error:
        raise FormatError(f"no model card ({error.strerror})", where=path, hint="train writes one") from None
    except (ValueError, yaml.YAMLError) as error:
        raise FormatError(f"the card's header cannot be read ({error})"[:300], where=path) from None
    known = {(r.unique_identifier, r.metric_type): r for r in (*(card.data.eval_results or ()), *found)}
    card.data.eval_results = list(known.values())
    card.data.model_name = card.data.model_name or path.parent.name
    before, title, after = card.text.partition(SCORES_TITLE)
    if title:
        _, heading, rest = after.partition("\n\n## ")
        card.text = before + title + _scores(card.data.eval_results) + heading + rest
    write_atomic(path, str(card).encode())


def _header(config: Mapping[str, Any], card: Mapping[str, Any], results: Sequence[EvalResult]) -> dict[str, Any]:
    from huggingface_hub.repocard_data import eval_results_to_model_index

    header: dict[str, Any] = {"library_name": "tidemark"} | licence_header(card.get("licence") or "not-stated")
    header |= {
        "pipeline_tag": PIPELINES[config["task_kind"]],
        "tags": ["tidemark", "earth-observation", config["model"]],
    }
    return header | ({"model-index": eval_results_to_model_index(config["model"], list(results))} if results else {})


def _usage(inputs: Mapping[str, int]) -> str:
    more = "".join(f", {name}={name}" for name in inputs if name != "image")
    return (
        "```python\nfrom tidemark.models.weights import from_pretrained\n\n"
        'pretrained = from_pretrained("this folder or repository")\n'
        "x, valid = pretrained.preprocess(stored)  # (B, C, H, W) in the order of the table below\n"
        f"logits = pretrained.model(image=x{more})\n```"
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
        f"Normalisation: {NORMALIZATIONS[preprocess['normalization']]}"
        + (", clipped to {:g}…{:g}.".format(*preprocess["clip"]) if preprocess.get("clip") else "."),
    ]
    if preprocess["mean"] is not None:
        rows += ["", "| channel | mean | std |", "|---|---|---|"]
        rows += [
            f"| {_plain(name)} | {mean:.6g} | {std:.6g} |"
            for name, mean, std in zip(channels, preprocess["mean"], preprocess["std"], strict=True)
        ]
    return "\n".join(rows)


def _harmonization(found: Mapping[str, Any]) -> str:
    rows = ["| band | sensor | unit |", "|---|---|---|"]
    rows += [
        "| " + " | ".join(_plain(band[key]) for key in ("name", "sensor", "unit")) + " |" for band in found["target"]
    ]
    form = "is added to the bicubic image" if found["residual"] else "is the reflectance itself"
    text = (
        "## Output\n\n"
        + "\n".join(rows)
        + f"\n\nThe network's answer {form}; it was trained with {_plain(found['loss'])}."
    )
    return text if found["pan"] is None else "## Panchromatic input\n\n" + _bands(found["pan"]) + "\n\n" + text


def _data(dataset: Mapping[str, Any]) -> str:
    if not dataset:
        return "Not recorded."
    text = (
        f"{_plain(dataset.get('title', dataset['name']))}, version {dataset['version']} (content "
        f"`{dataset['content_sha256']}`), licence: {_plain(dataset.get('licence') or 'not stated')}."
    )
    return text + (" **These data are simulated.**" if dataset.get("simulated") else "")


def _limits(dataset: Mapping[str, Any]) -> str:
    text = (
        "Other bands, units or sensors than in the table above are refused. Other regions, seasons and processing are "
        "not: the scores say nothing of them. A score without an interval has too few independent units for one; the "
        "known defects of the labels stand in the data set's own card."
    )
    return text + (" It has seen simulated scenes only." if dataset.get("simulated") else "")


def _calibration(found: Mapping[str, Any]) -> str:
    return (
        f"Probabilities are calibrated on the split `{found['split']}`: logits are divided by "
        f"{found['temperature']:.4g}, which changes the expected calibration error there from "
        f"{found['ece_before']:.4f} to {found['ece_after']:.4f}."
    )


def _scores(results: Sequence[EvalResult]) -> str:
    rows = ["| data | split | metric | value |", "|---|---|---|---|"]
    rows += [
        f"| {_plain(r.dataset_type)} {_plain(r.dataset_revision)} | {_plain(r.dataset_split)} "
        f"| {_plain(r.metric_type)} | "
        f"{f'{r.metric_value:.4f}' if isinstance(r.metric_value, float) else _plain(r.metric_value)}{_interval(r)} |"
        for r in results
    ]
    return "\n".join(rows) if results else "None recorded."


def _interval(result: EvalResult) -> str:
    bounds = (result.metric_args or {}).get("interval_95")
    return f" \\[{bounds[0]:.4f}, {bounds[1]:.4f}\\]" if isinstance(bounds, list) and len(bounds) == 2 else ""


def _plain(value: object) -> str:
    """Text that can neither end a table cell nor become markup."""
    return html.escape("" if value is None else str(value), quote=False).replace("|", "\\|").replace("\n", " ")
