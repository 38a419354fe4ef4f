"""Where weights lie: a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from os.path import isdir, isfile
from pathlib import Path

from ..datasets.files import sha256_file
from ..datasets.hub import set_aside
from ..datasets.hub_errors import explain
from ..errors import WeightsError

WEIGHTS_NAME, CONFIG_NAME = "model.safetensors", "config.json"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def find_weights(source: str | Path, revision: str | None) -> Path:
    """The folder that holds the weights; of a repository only the configuration and the tensors are fetched.

    Raises:
        WeightsError: neither a folder nor a repository that can be reached, or a pickle.
    """
    path = Path(source)
    if isfile(path):  # of pathlib's, a name that is too long is an error
        if path.name == WEIGHTS_NAME:
            return path.parent
        if path.suffix in PICKLES:
            raise pickle_refused(path)
        raise WeightsError("is a file", where=path, hint=f"give the folder of {WEIGHTS_NAME} and {CONFIG_NAME}")
    if isdir(path):
        if revision is not None:
            raise WeightsError(f"a folder has no revision {revision!r}", where=path)
        return path / "weights" if not (path / CONFIG_NAME).exists() and (path / "weights").is_dir() else path
    if path.is_absolute() or not _REPOSITORY.fullmatch(str(source)):
        raise WeightsError("no such folder, and not a repository of the form owner/name", where=source)
    return _fetch(str(source), revision)


def _fetch(repository: str, revision: str | None) -> Path:
    """Configuration and tensors of one commit, the tensors compared with the sha256 that the Hub states."""
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download

    wanted = [CONFIG_NAME, WEIGHTS_NAME]
    try:
        if constants.is_offline_mode():
            return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
        api = HfApi()
        commit = api.model_info(repository, revision=revision).sha
        stated = {entry.path: entry for entry in api.get_paths_info(repository, [WEIGHTS_NAME], revision=commit)}
        paths = [Path(hf_hub_download(repository, name, revision=commit)) for name in wanted]
    except Exception as error:
        told = explain(error, repository)
        raise WeightsError(told.what, where=repository, hint=told.hint) from None
    entry = stated.get(WEIGHTS_NAME)
    blob = paths[1].resolve()
    if entry is not None and entry.lfs is not None and (found := sha256_file(blob)) != entry.lfs.sha256:
        aside = set_aside(paths[1])
        raise WeightsError(
            f"{WEIGHTS_NAME}: sha256 expected {entry.lfs.sha256}, found {found}",
            where=repository,
            hint=f"set aside as {aside} and not used; try again",
        )
    return paths[0].parent


def pickle_refused(path: Path) -> WeightsError:
    """The error for a file that was made by pickle, or looks so."""
    return WeightsError(
        "is a pickle, which can run code when it is loaded; only safetensors are read",
        where=path,
        hint="ask its author for model.safetensors",
    )
