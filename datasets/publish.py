"""``tidemark push``: a verified data set becomes one commit and one tag of a Hugging Face repository."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from ..errors import ChecksumError, HubError, InputError
from .card import data_card
from .files import sha256_file
from .hub import CARD_NAME
from .hub_errors import explain
from .hub_reference import parse_reference
from .licences import hub_licence
from .reader import PARTIAL_NAME
from .spec import MANIFEST_NAME, Manifest, load_manifest, manifest_sha256
from .split_map import MAP_NAME, placed_scenes, split_map
from .verify import verify

PREVIEW_NAME = "preview.png"
PREVIEW_CHIPS = 8
KEPT = (".gitattributes", "CHANGELOG.md")  # files of the repository that a new version does not remove


@dataclass(frozen=True)
class Published:
    """Where a version is: repository, tag, commit (None after a dry run) and what was, or would be, uploaded."""

    repo: str
    tag: str
    commit: str | None
    files: tuple[str, ...]
    bytes: int
    new: bool


def push(folder: str | Path, repo: str, *, private: bool = False, dry_run: bool = False, rights: str = "") -> Published:
    """Publish ``<root>/<name>/<version>`` as tag ``v<version>``.

    The files go up in one commit. After an interruption the next call sends only what the Hub has not got yet. A
    version that is published already is compared file by file and never changed.

    Args:
        folder: the data set's folder.
        repo: ``ORG/NAME``.
        private: make a new repository private.
        dry_run: check everything that can be checked here, send nothing.
        rights: why it may be passed on, where its licence does not say so; stands in the card.

    Raises:
        InputError: it does not verify, or nothing says that it may be passed on.
        ChecksumError: the version is published with other bytes; the first such file is named.
        HubError: one line on what the Hub refused.
    """
    folder, reference = Path(folder), parse_reference(repo)
    if reference.version is not None:
        raise InputError("the version is the data set's own", where=repo, hint=f"give {reference.repo}")
    if (folder / PARTIAL_NAME).exists():
        raise InputError("only a part of this data set is here", where=folder, hint="pull it whole, or build it")
    manifest = load_manifest(folder)
    if hub_licence(manifest.licence) is None and not rights.strip():
        raise InputError(
            f"its licence ({manifest.licence or 'none stated'}) is not known to allow redistribution",
            where=f"{manifest.name} {manifest.version}",
            hint='if you may publish it, say why: --i-hold-the-rights "…"',
        )
    if problems := verify(folder).problems:
        raise InputError(f"{len(problems)} problems, first: {problems[0]}", where=folder, hint="run tidemark verify")
    paths = [MANIFEST_NAME, *(p for e in manifest.shards for p in (e.path, e.index_path))]
    size = sum((folder / path).stat().st_size for path in paths)
    tag = f"v{manifest.version}"
    if dry_run:
        pictures = (PREVIEW_NAME, MAP_NAME) if placed_scenes(manifest) else (PREVIEW_NAME,)
        return Published(repo, tag, None, (*paths, CARD_NAME, *pictures), size, True)
    try:
        return _send(folder, manifest, repo, tag, paths, size, private, rights)
    except Exception as error:
        raise explain(error, f"{repo}@{manifest.version}") from None


def _send(
    folder: Path, manifest: Manifest, repo: str, tag: str, paths: list[str], size: int, private: bool, rights: str
) -> Published:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=private or None, exist_ok=True)
    tags = {t.name: t.target_commit for t in api.list_repo_refs(repo, repo_type="dataset").tags}
    if tag in tags:
        _compare(api, folder, manifest, repo, tag, paths)
        return Published(repo, tag, api.repo_info(repo, repo_type="dataset", revision=tag).sha, (), 0, False)
    additions = [CommitOperationAdd(path, str(folder / path)) for path in paths]
    card = hub_card(manifest, rights)
    additions += [
        CommitOperationAdd(CARD_NAME, io.BytesIO(card.encode())),
        CommitOperationAdd(PREVIEW_NAME, _preview(folder, manifest)),
    ]
    if (picture := split_map(manifest)) is not None:
        additions.append(CommitOperationAdd(MAP_NAME, io.BytesIO(picture)))
    sent = {operation.path_in_repo for operation in additions}
    stale = [f for f in api.list_repo_files(repo, repo_type="dataset") if f not in sent and f not in KEPT]
    commit = api.create_commit(
        repo,
        [*additions, *(CommitOperationDelete(path, is_folder=False) for path in stale)],
        commit_message=f"{manifest.name} {manifest.version}",
        commit_description=f"content sha256 {manifest.content_sha256}\nmanifest sha256 {manifest_sha256(manifest)}",
        repo_type="dataset",
    )
    api.create_tag(repo, tag=tag, revision=commit.oid, repo_type="dataset")
    return Published(repo, tag, commit.oid, tuple(sorted(sent)), size, True)


def _compare(api, folder: Path, manifest: Manifest, repo: str, tag: str, paths: list[str]) -> None:
    """A published version is as it is here, or an error names the first file that is not."""
    from huggingface_hub import hf_hub_download

    there = {
        entry.path: entry
        for entry in api.list_repo_tree(repo, repo_type="dataset", revision=tag, recursive=True)
        if hasattr(entry, "blob_id")
    }
    for path in paths:
        entry = there.get(path)
        if entry is None:
            raise HubError(f"the published {tag} lacks {path}", where=repo, hint="publish a new version")
        if entry.lfs is not None:
            digest = entry.lfs.sha256
        else:
            digest = sha256_file(hf_hub_download(repo, path, repo_type="dataset", revision=tag))
        if digest != sha256_file(folder / path):
            raise ChecksumError(
                f"{path} is published as {tag} with other bytes: sha256 {digest}",
                where=f"{manifest.name} {manifest.version}",
                hint="a published version never changes: build it as a new version",
            )


def hub_card(manifest: Manifest, rights: str = "") -> str:
    """The data card with its picture and, where given, why it may be passed on."""
    card = data_card(manifest)
    title = f"# {manifest.title}\n"
    parts = [title, f"\n![Chips of the training split]({PREVIEW_NAME})\n"]
    if rights.strip():
        parts.append(f"\nPublished because: {' '.join(rights.split())}\n")
    return card.replace(title, "".join(parts), 1)


def _preview(folder: Path, manifest: Manifest) -> bytes:
    from tempfile import TemporaryDirectory

    from .plots import contact_sheet

    split = next((s.name for s in manifest.splits if s.name == "train"), manifest.splits[0].name)
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / PREVIEW_NAME
        contact_sheet(folder, split, path, n=PREVIEW_CHIPS, seed=0)
        return path.read_bytes()
