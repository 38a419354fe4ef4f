"""A cold page cache: emptied where the system allows it, else said not to be."""

from __future__ import annotations

import mmap

import numpy as np
from tidemark.benchmark.cold import cold_rates, forget


def test_a_mapped_file_stays_cached_and_is_forgotten_once_it_is_closed(tmp_path):
    path = tmp_path / "pixels"
    path.write_bytes(np.random.default_rng(0).bytes(4 << 20))
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = mapped[:]
        assert not forget(path)
    forgotten = forget(path)
    rates = cold_rates([path], lambda: float(path.read_bytes() == before), 2)
    assert (rates is None) == (not forgotten)
    if rates is not None:
        assert len(rates) == 2 and min(rates) > 0
