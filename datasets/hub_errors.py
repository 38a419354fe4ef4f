"""What the Hugging Face client raises, in one line each: what went wrong, where, and what to do."""

from __future__ import annotations

import errno
from pathlib import Path

from ..errors import HubError, TidemarkError
from .files import storage_error


def explain(error: Exception, where: object) -> TidemarkError:
    """The error of this package for one of ``huggingface_hub`` or of the network below it."""
    from huggingface_hub import errors

    if isinstance(error, TidemarkError):
        return error
    if isinstance(error, errors.GatedRepoError):
        what, hint = "access to this repository must be granted", "ask for it on its page, then `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, hint = "no such version or revision (404)", "see the repository's list of tags and branches"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what, hint = "no such repository, or it is private (404)", "check the name; if it is private, `hf auth login`"
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        what, hint = "a file is missing in the repository (404)", "its publisher must upload the version again"
    elif isinstance(error, errors.FileMetadataError):
        what, hint = "what answers there is no Hugging Face Hub", "check HF_ENDPOINT, proxy and certificates"
    elif isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        error.__cause__, errors.HfHubHTTPError | errors.FileMetadataError
    ):
        return explain(error.__cause__, where)
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        what, hint = "not in the local cache, and the hub cannot be reached", "connect, or unset HF_HUB_OFFLINE"
    elif isinstance(error, errors.HfHubHTTPError):
        what, hint = _of_status(error)
    elif any(word in type(error).__name__ for word in ("Connect", "Timeout")):  # the client's HTTP library may change
        what, hint = f"the hub cannot be reached ({error})"[:300], "check the network and HF_ENDPOINT, then try again"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return storage_error(error, Path(error.filename or "."))
    else:
        what, hint = f"the transfer failed ({type(error).__name__}: {error})"[:300], "check the network, then try again"
    return HubError(what, where=where, hint=hint)


def _of_status(error: Exception) -> tuple[str, str]:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status == 401:
        return "the access token is missing, wrong or expired (401)", "`hf auth login`, or set HF_TOKEN"
    if status == 403:
        return "the access token does not allow this (403)", "take a token with write access to this repository"
    if status == 429:
        wait = response.headers.get("Retry-After")
        return "too many requests (429)", f"try again in {wait} s" if wait else "try again later"
    if status is not None and status >= 500:
        return f"the hub has a fault of its own ({status})", "try again later"
    return f"the hub answered {status or type(error).__name__}", "try again; --debug shows its whole answer"
