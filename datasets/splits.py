"""Which chip or scene goes into which split: pure functions, used before anything is built.

A split is frozen by its rule and its numbers. No rule here assigns single chips at random: chips of one place go
together, and what lies within the guard distance of another split is left out (``None``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import shapely

from ..errors import ConfigError, LeakError


def by_scene(scenes: Sequence[str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Deal whole scenes to the splits, at least one to each.

    Args:
        scenes: scene ids; their order does not matter.
        fractions: share of the scenes for each split, summing to 1, in order of preference for odd scenes.
        seed: of the permutation (PCG64).

    Raises:
        ConfigError: repeated ids, fractions that do not sum to 1, or fewer scenes than splits.
    """
    ids = sorted(scenes)
    if len(set(ids)) != len(ids):
        raise ConfigError("scene ids repeat", where=next(a for a, b in zip(ids, ids[1:], strict=False) if a == b))
    counts = _share(len(ids), fractions)
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(ids))
    names = [name for name, count in counts.items() for _ in range(count)]
    return {ids[at]: name for at, name in zip(order, names, strict=True)}


def by_group(keys: Mapping[str, str], fractions: Mapping[str, float], seed: int = 0) -> dict[str, str]:
    """Deal whole groups of scenes: those of one place (an MGRS tile), one day or one connected piece of ground.

    Args:
        keys: scene id -> key of its group; scenes of one key never part.
        fractions, seed: as for ``by_scene``, over the groups.

    Returns:
        scene id -> split.
    """
    dealt = by_scene(sorted(set(keys.values())), fractions, seed)
    return {scene: dealt[key] for scene, key in sorted(keys.items())}


def by_table(scenes: Sequence[str], table: Mapping[str, str]) -> dict[str, str]:
    """The split that a published table names for every scene. Raises ConfigError for a scene that it lacks."""
    if missing := sorted(set(scenes) - set(table)):
        raise ConfigError(f"the split table does not name scene {missing[0]!r} (and {len(missing) - 1} more)")
    return {scene: table[scene] for scene in sorted(scenes)}


def connected_groups(n: int, pairs: np.ndarray) -> np.ndarray:
    """int64 (n,): for every scene the lowest number of a scene that it hangs together with.

    Args:
        n: number of scenes.
        pairs: int64 (K, 2), scenes that share ground or come too close.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), pairs.T), shape=(n, n))
    _, number = connected_components(graph, directed=False)
    first = np.full(n, n, np.int64)
    np.minimum.at(first, number, np.arange(n))
    return first[number]


def _share(n: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers >= 1 that sum to n, by largest remainder."""
    if not fractions or min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ConfigError(f"split fractions must be positive and sum to 1, found {dict(fractions)}")
    if n < len(fractions):
        raise ConfigError(f"{n} scenes or blocks cannot fill {len(fractions)} splits")
    exact = {name: fraction * n for name, fraction in fractions.items()}
    counts = {name: max(1, int(value)) for name, value in exact.items()}
    while (excess := sum(counts.values()) - n) != 0:
        step = -1 if excess > 0 else 1
        candidates = [name for name in counts if counts[name] + step >= 1]
        counts[max(candidates, key=lambda name: step * (exact[name] - counts[name]))] += step
    return counts


def close_pairs(left: np.ndarray, right: np.ndarray, distance: float) -> np.ndarray:
    """Pairs of footprints that overlap or are nearer than ``distance``.

    Args:
        left, right: object arrays (N,), (M,) of shapely geometries in one projected CRS (same unit as ``distance``).
        distance: guard distance; footprints that only touch are a pair when it is above 0.

    Returns:
        int64 (K, 2): indices into left and right, sorted. Found through a spatial index (STRtree).
    """
    if not len(left) or not len(right):
        return np.empty((0, 2), np.int64)
    found = shapely.STRtree(right).query(left, predicate="dwithin", distance=max(distance, 0.0)).T
    a, b = left[found[:, 0]], right[found[:, 1]]
    near = shapely.distance(a, b) < distance
    near |= shapely.area(shapely.intersection(a, b)) > 1e-9 * np.minimum(shapely.area(a), shapely.area(b))
    found = found[near].astype(np.int64)
    return found[np.lexsort(found.T[::-1])]


def by_spatial_block(
    boxes: np.ndarray, block: float, guard: float, fractions: Mapping[str, float], seed: int = 0
) -> list[str | None]:
    """Deal square blocks of ground to the splits and keep a guard distance between splits.

    Args:
        boxes: float64 (N, 4) west, south, east, north of every chip *with its context windows*, in one projected CRS.
        block: side of a block, in CRS units; a chip belongs to the block that holds its centre.
        guard: least distance between chips of different splits, in CRS units.
        fractions: share of the occupied blocks for each split. Where two splits come too close, the one named
            earlier gives up its chips, so name the largest (training) first.
        seed: of the permutation of the blocks.

    Returns:
        The split of every chip, None for the dropped ones.
    """
    if block <= 0 or guard < 0:
        raise ConfigError(f"block must be > 0 and guard >= 0, found {block} and {guard}")
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    cells, owner = np.unique(np.floor(centres / block).astype(np.int64), axis=0, return_inverse=True)
    names = [f"{i:08d}" for i in range(len(cells))]
    dealt = by_scene(names, fractions, seed)
    result: list[str | None] = [dealt[names[at]] for at in owner.reshape(-1)]
    shapes = shapely.box(*boxes.T)
    order = list(fractions)
    for weaker, stronger in reversed(list(combinations(order, 2))):
        losing, keeping = (np.array([i for i, s in enumerate(result) if s == name], int) for name in (weaker, stronger))
        for at in np.unique(close_pairs(shapes[losing], shapes[keeping], guard)[:, 0]):
            result[losing[at]] = None
    return result


@dataclass(frozen=True)
class IndexBlock:
    """Ids ``start`` <= id < ``stop`` belong to ``split``."""

    start: int
    stop: int
    split: str


def by_index_blocks(ids: Sequence[int], blocks: Sequence[IndexBlock], drop: int) -> dict[int, str]:
    """Split numbered chips whose neighbours in number are neighbours on the ground.

    Args:
        ids: distinct numbers; those in no block are left out.
        blocks: ranges of ids that do not overlap.
        drop: existing ids left out at every cut between different splits, half of them on each side
            (the odd one from the block before the cut).

    Returns:
        id -> split, without the dropped ids, in order of id.
    """
    ordered = sorted(set(ids))
    if len(ordered) != len(ids):
        raise ConfigError("ids repeat")
    runs = sorted(blocks, key=lambda b: b.start)
    for a, b in zip(runs, runs[1:], strict=False):
        if b.start < a.stop:
            raise LeakError(f"blocks {a.start}-{a.stop} ({a.split}) and {b.start}-{b.stop} ({b.split}) overlap")
    members = [(i, block.split) for block in runs for i in ordered if block.start <= i < block.stop]
    cuts = [at for at in range(1, len(members)) if members[at][1] != members[at - 1][1]]
    dropped = {at for cut in cuts for at in range(cut - (drop + 1) // 2, cut + drop // 2)}
    return {i: split for at, (i, split) in enumerate(members) if at not in dropped}


@dataclass(frozen=True)
class PhaseBlock:
    """Phases ``start`` <= phase < ``stop`` (0 to 1) belong to ``split``; the block is one unit of inference."""

    start: float
    stop: float
    split: str

    @property
    def id(self) -> str:
        """Scene id, such as ``phase-0.440-0.510``."""
        return f"phase-{self.start:.3f}-{self.stop:.3f}"


def check_phase_guard(blocks: Sequence[PhaseBlock], guard: float) -> None:
    """Raise LeakError when two blocks overlap, or two of different splits are nearer than ``guard``.

    The phase runs in a circle: 0.99 and 0.01 are 0.02 apart.
    """
    for block in blocks:
        if not 0 <= block.start < block.stop <= 1:
            raise ConfigError(f"phase block must satisfy 0 <= start < stop <= 1, found {block.start}-{block.stop}")
    for a, b in combinations(sorted(blocks, key=lambda b: b.start), 2):
        gap = min(b.start - a.stop, 1 - b.stop + a.start)
        if b.start < a.stop or (a.split != b.split and gap < guard - 1e-9):
            raise LeakError(
                f"phase blocks {a.id} ({a.split}) and {b.id} ({b.split}) are {gap:.3f} apart, guard {guard}"
            )


def by_phase_blocks(phase: np.ndarray, blocks: Sequence[PhaseBlock], guard: float) -> np.ndarray:
    """Block number (int64, same shape as ``phase``) of every chip, -1 where no block holds it (the guard bands).

    Args:
        phase: float64 in [0, 1), position within a pass over the scenes.
        blocks: checked by ``check_phase_guard``.
        guard: least circular distance in phase between blocks of different splits.
    """
    check_phase_guard(blocks, guard)
    number = np.full(np.shape(phase), -1, np.int64)
    for at, block in enumerate(blocks):
        number[(phase >= block.start) & (phase < block.stop)] = at
    return number
