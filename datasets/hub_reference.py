"""Which commit of a repository a version is: names, tags, and the lock file that keeps a moved tag from passing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError, HubError, InputError
from .hub_errors import explain

MAX_LOCK_BYTES = 4 << 20
_REFERENCE = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(@v?(?P<version>\d+\.\d+\.\d+))?")
_TAG = re.compile(r"v(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
_COMMIT = re.compile(r"[0-9a-f]{40}")
Lock = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Reference:
    """``ORG/NAME@1.0.0``; without a version the newest one is meant."""

    repo: str
    version: str | None

    def __str__(self) -> str:
        return self.repo if self.version is None else f"{self.repo}@{self.version}"


def parse_reference(text: str) -> Reference:
    """Read ``ORG/NAME[@1.0.0]``, with or without ``hf://`` before it. Raises InputError."""
    found = _REFERENCE.fullmatch(text.removeprefix("hf://"))
    if found is None:
        raise InputError("not of the form ORG/NAME or ORG/NAME@1.0.0", where=text[:200])
    return Reference(found["repo"], found["version"])


def resolve(reference: Reference, lock: Lock) -> tuple[Reference, str]:
    """The reference with its version, and the 40-hex commit: as the Hub says now; offline, as it is locked.

    Raises:
        HubError: it cannot be reached, there is no such version, or the tag has moved since it was locked.
    """
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        known = [ref for ref in map(parse_reference, lock) if ref.repo == reference.repo]
        known = [ref for ref in known if reference.version in (None, ref.version)]
        if not known:
            raise HubError("offline, and it was never pulled here", where=reference, hint="connect once")
        newest = max(known, key=lambda ref: [int(part) for part in ref.version.split(".")])
        return newest, lock[str(newest)]["commit"]
    api = HfApi()
    try:
        version = reference.version or _newest(api.list_repo_refs(reference.repo, repo_type="dataset").tags, reference)
        commit = api.repo_info(reference.repo, repo_type="dataset", revision=f"v{version}").sha or ""
    except Exception as error:
        raise explain(error, reference) from None
    pinned = Reference(reference.repo, version)
    if not _COMMIT.fullmatch(commit):
        raise HubError(f"the hub names no commit for v{version} but {commit[:60]!r}", where=reference)
    locked = lock.get(str(pinned), {}).get("commit", commit)
    if commit != locked:
        raise HubError(
            f"the tag v{version} has moved: locked at {locked[:12]}, now at {commit[:12]}",
            where=reference,
            hint="a published version must not change: ask its publisher; to accept it, remove it from the lock file",
        )
    return pinned, commit


def _newest(tags: Iterable, reference: Reference) -> str:
    versions = [tuple(map(int, found.groups())) for tag in tags if (found := _TAG.fullmatch(tag.name))]
    if not versions:
        raise HubError("no version is tagged there", where=reference, hint="its publisher runs `tidemark push`")
    return ".".join(map(str, max(versions)))


def read_lock(path: Path) -> Lock:
    """Commit and digests by ``ORG/NAME@1.0.0``; empty where there is no file. Raises FormatError."""
    if not path.exists():
        return {}
    try:
        if path.stat().st_size > MAX_LOCK_BYTES:
            raise ValueError("too long")
        lock = json.loads(path.read_bytes())
        if all(_COMMIT.fullmatch(entry["commit"]) for entry in lock.values()):
            return lock
        raise ValueError("no commit")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"not a lock file ({error})"[:200], where=path, hint="remove it and pull again") from None
