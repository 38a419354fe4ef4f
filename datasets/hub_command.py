"""What ``tidemark pull``, ``push`` and ``cache`` print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from .command import progress_bar
from .hub import pull
from .publish import push


def pull_command(reference: str, out: Path, splits: Sequence[str], scenes: Sequence[str], bounds: str | None) -> None:
    """Pull with a progress bar (the client shows the rate of each file) and print the folder."""
    box = None if bounds is None else _box(bounds)
    with progress_bar(f"pull {reference}") as progress:
        folder = pull(reference, out, splits=splits, scenes=scenes, bounds=box, progress=progress)
    print(folder)


def push_command(folder: Path, repo: str, private: bool, dry_run: bool, rights: str) -> None:
    """Publish a data set and say what was, or would be, sent."""
    done = push(folder, repo, private=private, dry_run=dry_run, rights=rights)
    if dry_run:
        for path in done.files:
            print(path)
        print(f"{len(done.files)} files, {done.bytes / 1e6:.1f} MB would become {done.repo} {done.tag}")
    elif done.new:
        print(f"{done.repo} {done.tag} is commit {done.commit}: {len(done.files)} files, {done.bytes / 1e6:.1f} MB")
    else:
        print(f"{done.repo} {done.tag} is published already, with the same bytes: commit {done.commit}")


def cache_command(clean: bool) -> None:
    """Show what the client's cache holds of each repository, and the streamed chips; remove all that on request."""
    from huggingface_hub import constants, scan_cache_dir

    from .stream import chip_cache, clear_chip_cache

    cache = Path(constants.HF_HUB_CACHE)
    found = scan_cache_dir() if cache.is_dir() else None
    ours = [repo for repo in (found.repos if found else ()) if any(_is_ours(r) for r in repo.revisions)]
    for repo in sorted(ours, key=lambda repo: repo.repo_id):
        print(f"{repo.size_on_disk / 1e6:10.1f} MB  {repo.repo_type} {repo.repo_id}")
    streamed = sum(p.stat().st_size for p in chip_cache().rglob("*") if p.is_file()) if chip_cache().is_dir() else 0
    print(f"{streamed / 1e6:10.1f} MB  streamed chips\n{cache}")
    if clean:
        strategy = found.delete_revisions(*(r.commit_hash for repo in ours for r in repo.revisions)) if ours else None
        freed = clear_chip_cache() + (strategy.expected_freed_size if strategy else 0)
        if strategy:
            strategy.execute()
        print(f"{freed / 1e6:.1f} MB removed; data sets under the data root stay")


def _is_ours(revision) -> bool:
    return bool({f.file_name for f in revision.files} & {"dataset.json", "model.safetensors"})


def _box(text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = map(float, text.replace(",", " ").split())
    except ValueError:
        raise InputError("not four numbers: west,south,east,north in degrees", where=f"--bbox {text}"[:200]) from None
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError("not a box: west < east and south < north, in degrees", where=f"--bbox {text}")
    return west, south, east, north
