"""Where weights lie: a folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

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
    if path.is_file():
        if path.name == WEIGHTS_NAME:
            return path.parent
        if path.suffix in PICKLES:
            raise pickle_refused(path)
        raise WeightsError("is a file", where=path, hint=f"give the folder of {WEIGHTS_NAME} and {CONFIG_NAME}")
    if path.is_dir():
        if revision is not None:
            raise WeightsError(f"a folder has no revision {revision!r}", where=path)
        return path / "weights" if not (path / CONFIG_NAME).exists() and (path / "weights").is_dir() else path
    if path.is_absolute() or not _REPOSITORY.fullmatch(str(source)):
        raise WeightsError("no such folder, and not a repository of the form owner/name", where=source)
    return _fetch(str(source), revision)


def _fetch(repository: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME]))
    except errors.GatedRepoError:
        what, hint = "access to this repository must be granted", "ask for it on its page, then `hf auth login`"
    except errors.RevisionNotFoundError:
        what, hint = f"the repository has no revision {revision!r}", "see its list of branches and tags"
    except errors.RepositoryNotFoundError:
        what, hint = "no such folder here and no such repository", "check the name, or `hf auth login` if it is private"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        what, hint = "not in the local cache and the hub cannot be reached", "connect, or give a local folder"
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        what = "too many requests (429)" if status == 429 else f"the hub answered {status or type(error).__name__}"
        hint = "try again later" if status == 429 else "try again, or give a local folder"
    except (OSError, ValueError) as error:
        what, hint = f"cannot be fetched ({type(error).__name__}: {error})", "check the network"
    raise WeightsError(what, where=repository, hint=hint)


def pickle_refused(path: Path) -> WeightsError:
    """The error for a file that was made by pickle, or looks so."""
    return WeightsError(
        "is a pickle, which can run code when it is loaded; only safetensors are read",
        where=path,
        hint="ask its author for model.safetensors",
    )
