"""Weights to and from the Hugging Face Hub: three files, safetensors alone, always named by a commit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..datasets.files import atomic_path, sha256_file
from ..datasets.hub_errors import explain
from ..errors import InputError, WeightsError
from .card import add_scores, eval_results
from .fetch import CONFIG_NAME, WEIGHTS_NAME, find_weights
from .weights import CARD_NAME, from_pretrained


@dataclass(frozen=True)
class PushedModel:
    """Where the weights are now."""

    repo: str
    commit: str | None
    weights_sha256: str
    files: tuple[str, ...]


def push_model(
    run: str | Path,
    repo: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    tag: str | None = None,
) -> PushedModel:
    """Publish the weights of a run, or a folder of weights, in one commit.

    They are loaded first as anyone would load them. The scores of the run's records go into the card.

    Args:
        run: a run folder or a folder of weights.
        repo: ``ORG/NAME``.
        private: make a new repository private.
        dry_run: check everything, send nothing.
        tag: name of a tag to set on the commit.

    Raises:
        WeightsError: they do not load.
        InputError: ``repo`` is not of the form ORG/NAME.
        HubError: the Hub refused, in one line.
    """
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError("not of the form ORG/NAME", where=repo[:200])
    folder = find_weights(run, None)
    pretrained = from_pretrained(folder)
    _enter_scores(Path(run), folder, pretrained.dataset, pretrained.task_kind)
    names = [name for name in (WEIGHTS_NAME, CONFIG_NAME, CARD_NAME) if (folder / name).is_file()]
    done = PushedModel(repo, None, pretrained.weights_sha256, tuple(names))
    if dry_run:
        return done
    try:
        from huggingface_hub import CommitOperationAdd, HfApi

        api = HfApi()
        api.create_repo(repo, private=private or None, exist_ok=True)
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, str(folder / name)) for name in names],
            commit_message=f"{pretrained.name}, weights {pretrained.weights_sha256[:12]}",
        )
        if tag:
            api.create_tag(repo, tag=tag, revision=commit.oid)
    except Exception as error:
        raise explain(error, repo) from None
    return PushedModel(repo, commit.oid, pretrained.weights_sha256, tuple(names))


def _enter_scores(run: Path, folder: Path, dataset: dict, task_kind: str) -> None:
    """Scores of ``<run>/<split>/result.json`` on the data that the weights know, into their card."""
    import json

    scores: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    for path in sorted(run.glob("*/result.json")):
        record = json.loads(path.read_bytes())
        known = record.get("dataset", {})
        if known.get("content_sha256") == dataset.get("content_sha256") and (folder / CARD_NAME).is_file():
            metrics = {key: metric for key, metric in record["metrics"].items() if metric.get("value") is not None}
            scores[known["split"]] = {key: metric["value"] for key, metric in metrics.items()}
            bounds = {key: metric["interval"] for key, metric in metrics.items() if metric.get("interval")}
            intervals[known["split"]] = {key: (b["low"], b["high"]) for key, b in bounds.items()}
    if scores:
        add_scores(folder / CARD_NAME, eval_results(task_kind, dataset, scores, intervals))


def pull_model(source: str, out: str | Path, revision: str | None = None) -> Path:
    """Bring weights to ``<out>/<name>``: fetched at one commit, compared, and loaded once. Raises WeightsError."""
    if Path(source).exists():
        raise WeightsError("is here already", where=source, hint="give ORG/NAME of a repository")
    cached = find_weights(source, revision)
    from_pretrained(cached)
    folder = Path(out) / source.partition("/")[2]
    if (folder / WEIGHTS_NAME).exists() and sha256_file(folder / WEIGHTS_NAME) != sha256_file(cached / WEIGHTS_NAME):
        raise WeightsError("other weights lie here", where=folder, hint="move them away")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes((cached / name).read_bytes())
    return folder
