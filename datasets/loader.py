"""The fast path from shards to batches: threads that copy, decode and verify straight into batch buffers.

HDF5 is touched once per shard (guard and chunk index); after that chips come from the mapped file without any lock,
and the workers release the GIL while they work. A thread needs no copy through shared memory, so two threads outrun
a ``DataLoader`` with worker processes.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..errors import DeviceError, InputError
from .reader import Shard, is_remote, open_split
from .shard import SMALL_CHIP_BYTES

Buffers = dict[str, np.ndarray]
Part = tuple[Shard, list[int], slice]


def epoch_order(n: int, seed: int, epoch: int) -> np.ndarray:
    """int64 (n,): the shuffled chip numbers of one epoch, from PCG64 keyed by seed and epoch."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)


class EpochSampler:
    """Which chips make which batch on this rank.

    Shuffled (training): every rank gets the same number of batches of the same sizes; the order is padded with its
    own beginning to a multiple of ``world_size``, or with ``drop_last`` cut to whole batches on every rank.
    In order (evaluation): the ranks' shares are contiguous, disjoint and together complete; nothing is padded.
    """

    def __init__(
        self, n: int, batch_size: int, *, shuffle: bool, seed: int, rank: int, world_size: int, drop_last: bool
    ) -> None:
        if n < 1 or batch_size < 1:
            raise InputError(f"needs at least one chip and a batch size above 0, found {n} and {batch_size}")
        if not 0 <= rank < world_size:
            raise InputError(f"rank {rank} of {world_size} does not exist", where="loader")
        if seed < 0:
            raise InputError(f"the seed must not be negative, found {seed}", where="loader")
        self.n, self.batch_size, self.shuffle, self.seed = n, batch_size, shuffle, seed
        self.rank, self.world_size, self.drop_last = rank, world_size, drop_last
        self.epoch = 0
        self.start = 0  # batches of this epoch that an interrupted run has already had
        self.yielded = 0
        if shuffle and len(self) == 0:
            raise InputError(
                f"{n} chips do not fill one batch of {batch_size} on each of {world_size} ranks",
                where="loader",
                hint="take a smaller batch size or keep the last batch",
            )

    def __len__(self) -> int:
        share = self._share()
        return share // self.batch_size if self.drop_last else -(-share // self.batch_size)

    def _share(self) -> int:
        if not self.shuffle:
            return self.n * (self.rank + 1) // self.world_size - self.n * self.rank // self.world_size
        return self.n // self.world_size if self.drop_last else -(-self.n // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next pass reads; another epoch than the present one starts at its first batch."""
        if epoch != self.epoch:
            self.start = 0
        self.epoch, self.yielded = epoch, self.start

    def batches(self) -> list[np.ndarray]:
        """The present epoch's chip numbers on this rank, one int64 array (<= batch_size,) per batch.

        Within a batch they ascend: what is random is which chips meet, and reading goes forward through the files.
        """
        if self.shuffle:
            order = epoch_order(self.n, self.seed, self.epoch)
            own = np.resize(order, self._share() * self.world_size)[self.rank :: self.world_size]
        else:
            first = self.n * self.rank // self.world_size
            own = np.arange(first, first + self._share())
        cuts = [own[k * self.batch_size : (k + 1) * self.batch_size] for k in range(len(self))]
        return [np.sort(batch) for batch in cuts]

    def begin(self) -> list[np.ndarray]:
        """The batches that a new pass has to read. A pass after a finished one goes on to the next epoch."""
        if self.shuffle and self.start == 0 and self.yielded == len(self):
            self.set_epoch(self.epoch + 1)
        start, self.start = self.start, 0
        self.yielded = start
        return self.batches()[start:]


class BufferRing:
    """Batch buffers that are used again once nobody else holds them.

    Fresh memory costs a page fault every 4 KiB, more than the copy itself. A tensor made by ``torch.from_numpy``
    keeps a reference to its array as long as any view of it lives, so the array's reference count tells.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._lock = limit, Lock()
        self._ring: deque[tuple[Buffers, list[int]]] = deque()

    def take(self, shapes: dict[str, tuple[tuple[int, ...], str]]) -> Buffers:
        """Arrays of these names, shapes and dtypes, with arbitrary content."""
        with self._lock:
            for arrays, idle in self._ring:
                if _references(arrays) == idle:
                    return dict(arrays)
            arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
            self._ring.append((arrays, _references(arrays)))
            if len(self._ring) > self._limit:
                self._ring.popleft()  # still held outside: it is freed when its holder lets go
            return dict(arrays)


def _references(arrays: Buffers) -> list[int]:
    return [sys.getrefcount(array) for array in arrays.values()]


class ChipLoader:
    """Batches of one split in the data set's native dtypes, in host memory.

    Args:
        root: the data set's folder, ``<root>/<name>/<version>``, or ``hf://ORG/NAME@1.0.0`` to stream it.
        split: name of the split.
        batch_size: chips per batch on this rank.
        arrays: names of the arrays to read; all by default.
        shuffle: training order, another one each epoch; else the split's order.
        seed: with the epoch it fixes the order, whatever the number of threads.
        rank, world_size: this process among those that share the split (see ``EpochSampler``).
        drop_last: leave out a last batch that is not full.
        checksum: compare every chip with its stored checksum.
        threads: threads that read.
        prefetch: batches read ahead of the consumer.
        pin_memory: page-locked batches for fast copies to a GPU; by default where CUDA is there.

    Yields dicts of tensors: every array under its name, (B, ...), and ``index`` int64 (B,), the chips' numbers in the
    split (0..N-1, in shard order). A batch never changes after it was handed out.

    Raises:
        InputError: wrong arguments.
        DeviceError: page-locked memory without CUDA.
        FormatError, ChecksumError: while iterating, naming shard, array and chip.
    """

    batch_sampler = None  # Lightning asks whoever has a ``sampler`` for this as well

    def __init__(
        self,
        root: str | Path,
        split: str,
        batch_size: int,
        *,
        arrays: Sequence[str] | None = None,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        checksum: bool = True,
        threads: int = 2,
        prefetch: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        if threads < 1 or prefetch < 0:
            raise InputError(f"needs threads >= 1 and prefetch >= 0, found {threads} and {prefetch}", where="loader")
        self.root, self.split = root if is_remote(root) else Path(root), split
        self.manifest, self.shards = open_split(root, split, checksum)
        names = [a.name for a in self.manifest.arrays] if arrays is None else list(arrays)
        self.arrays = [self.manifest.array(name) for name in names]
        self.batch_size, self.threads, self.prefetch = batch_size, threads, prefetch
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        if self.pin_memory and not torch.cuda.is_available():
            raise DeviceError("page-locked memory needs CUDA", where="loader", hint="leave pin_memory out")
        self._starts = np.cumsum([0, *(shard.n for shard in self.shards)])
        self.sampler = EpochSampler(
            int(self._starts[-1]),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        # Small chips are read a batch at a time: a call per chip would cost more than the chip.
        self._small = sum(array.chip_bytes for array in self.arrays) < SMALL_CHIP_BYTES
        self._ring, self._ring_pid = BufferRing(prefetch + 3), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ring": None, "_ring_pid": -1}

    def __len__(self) -> int:
        return len(self.sampler)

    @property
    def chip_ids(self) -> list[str]:
        """The split's chip ids by chip number."""
        return [chip_id for shard in self.shards for chip_id in shard.chip_ids]

    @property
    def scene_ids(self) -> list[str]:
        """The id of each chip's scene, by chip number."""
        scenes = self.manifest.scenes
        return [scenes[i].id for shard in self.shards for i in shard.scene_index.tolist()]

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: the epoch, the batches handed out in it, and what fixes their order."""
        return {"epoch": self.sampler.epoch, "batches": self.sampler.yielded, **self._identity()}

    def _identity(self) -> dict[str, Any]:
        fields = ("n", "batch_size", "shuffle", "seed", "world_size", "drop_last")
        own = {field: getattr(self.sampler, field) for field in fields}
        return own | {"split": self.split, "content_sha256": self.manifest.content_sha256}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next pass go on after the batches that ``state`` counts. Raises InputError if it cannot."""
        for key, own in self._identity().items():
            if state.get(key) != own:
                raise InputError(f"{key} is {own!r}, the saved state has {state.get(key)!r}", where="loader state")
        epoch, batches = state.get("epoch"), state.get("batches")
        if not isinstance(epoch, int) or not isinstance(batches, int) or epoch < 0 or not 0 <= batches <= len(self):
            raise InputError(f"epoch {epoch!r} and batch {batches!r} of {len(self)} do not exist", where="loader state")
        self.sampler.epoch, self.sampler.start, self.sampler.yielded = epoch, batches, batches

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        # A generator: the order is fixed at the first batch, because Lightning sets the epoch after iter().
        if self._ring_pid != os.getpid():
            self._ring, self._ring_pid = BufferRing(self.prefetch + 3), os.getpid()
        todo = deque(self.sampler.begin())
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="tidemark-chips")
        ahead: deque[tuple[dict[str, Tensor], list[Future]]] = deque()
        try:
            while todo or ahead:
                while todo and len(ahead) <= self.prefetch:
                    ahead.append(self._submit(pool, todo.popleft()))
                for future in ahead[0][1]:
                    future.result()
                self.sampler.yielded += 1
                yield ahead.popleft()[0]  # not bound to a name here, or the buffer would count as held
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, index: np.ndarray) -> tuple[dict[str, Tensor], list[Future]]:
        tensors, buffers = self._batch(len(index))
        tensors["index"] = torch.from_numpy(index)
        parts = self._parts(index)
        queue = iter(parts)  # shared: each thread takes the next part
        return tensors, [pool.submit(_read_parts, queue, buffers) for _ in range(min(self.threads, len(parts)))]

    def _batch(self, count: int) -> tuple[dict[str, Tensor], Buffers]:
        if self.pin_memory:  # torch's own cache reuses pinned memory, and waits for copies that are under way
            tensors = {
                a.name: torch.empty((count, *a.shape), dtype=getattr(torch, a.dtype), pin_memory=True)
                for a in self.arrays
            }
            return tensors, {name: tensor.numpy() for name, tensor in tensors.items()}
        rows = min(self.batch_size, self.sampler.n)
        full = self._ring.take({a.name: ((rows, *a.shape), a.dtype) for a in self.arrays})
        buffers = {name: array[:count] for name, array in full.items()}
        return {name: torch.from_numpy(array) for name, array in buffers.items()}, buffers

    def _parts(self, index: np.ndarray) -> list[Part]:
        """Cut a batch into calls of ``Shard.read_many``: shard, chips in it, places in the batch."""
        owner = np.searchsorted(self._starts, index, side="right") - 1
        local = (index - self._starts[owner]).tolist()
        if self._small or self.shards[0].whole_batches:
            edges = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(index)]
        else:
            edges = range(len(index) + 1)
        return [(self.shards[owner[a]], local[a:b], slice(a, b)) for a, b in pairwise(edges)]


def _read_parts(queue: Iterator[Part], buffers: Buffers) -> None:
    for shard, chips, place in queue:
        shard.prepare(list(buffers), chips)
        for name, buffer in buffers.items():
            shard.read_many(name, chips, buffer[place])
