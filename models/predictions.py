"""``predictions.h5``: what a model says about every chip of one split, as data.

Layout (HDF5, datasets at the root, chips in the split's order):

==============  =======================  ==================================================================
``chip_id``     (N,) S48, contiguous     the data set's chip ids
``prediction``  (N,H,W) or (N,) uint8    class id; 255 where the input is invalid (nodata)
``probability`` (N,H,W) or (N,K) uint8   optional: round(255 p), p of class 1 (binary maps) or of every class
``reflectance`` (N,C,H,W) float16        instead of the two above: harmonized reflectance 0…1; NaN where invalid
==============  =======================  ==================================================================

Maps are stored one chip a chunk, gzip-4 + shuffle; (N,) and (N,K) are contiguous. The attributes
``tidemark_predictions`` (format), ``dataset``, ``version``, ``content_sha256``, ``split`` and ``model`` are
fixed-length bytes. The evaluator leaves out pixels whose *input* is invalid; a 255 or NaN on any other pixel counts as
wrong.

Files come from outside, so the reader looks at links, types, layout, filters and sizes before it reads anything and
inflates chunks itself with a size limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from ..datasets.codecs import dataset_options, decode, encode
from ..datasets.files import atomic_path
from ..datasets.guard import check_links, open_dataset, place_chunks, read_attribute
from ..datasets.plan import MAX_CHIP_ID_BYTES
from ..datasets.reader import open_split
from ..datasets.spec import MAX_CHIP_BYTES, Array, Manifest
from ..errors import FormatError, StorageError

PREDICTIONS_NAME = "predictions.h5"
FORMAT = "1.1"
FORMAT_OF_CLASSES = "1.0"  # class maps are written as the first readers know them
NODATA = 255
DTYPES = {"prediction": np.uint8, "probability": np.uint8, "reflectance": np.float16}
ATTRIBUTES = ("tidemark_predictions", "dataset", "version", "content_sha256", "split", "model")
Prediction = tuple[np.ndarray, np.ndarray | None]


def write_predictions(
    path: str | Path,
    *,
    dataset: Mapping[str, str],
    split: str,
    model: str,
    chip_ids: Sequence[str],
    chunks: Iterable[Prediction],
) -> Path:
    """Write one split's predictions, streaming, atomically; the same predictions give the same bytes.

    Args:
        path: the file to make, usually ``<run>/<split>/predictions.h5``.
        dataset: with the keys name, version and content_sha256 of the data predicted on.
        split: name of the split.
        model: name of the model.
        chip_ids: all chips of the split, in its order.
        chunks: per chip, in that order: class ids uint8 (H,W) or (), and round(255 p) as uint8 (H,W) or (K,) or None;
            or reflectance float16 (C,H,W) and None.

    Raises:
        FormatError: the chunks do not fit the chips or each other.
        StorageError: the disk refuses.
    """
    path, chunks = Path(path), iter(chunks)
    values = (FORMAT_OF_CLASSES, dataset["name"], dataset["version"], dataset["content_sha256"], split, model)
    first = next(chunks, None)
    if first is None or not chip_ids:
        raise FormatError("no predictions to write", where=path)
    if np.ndim(first[0]) == 3:
        values = (FORMAT, *values[1:])
    with atomic_path(path) as temporary:
        try:
            with h5py.File(temporary, "w", libver=("v108", "v108"), track_order=False) as file:
                for key, value in zip(ATTRIBUTES, values, strict=True):
                    file.attrs.create(key, np.bytes_(value))
                _fill(file, chip_ids, chain([first], chunks), path)
        except RuntimeError as error:  # h5py reports a full disk at close like this
            raise StorageError(f"cannot write ({error})", where=path) from error
    return path


def _fill(file: h5py.File, chip_ids: Sequence[str], chunks: Iterator[Prediction], path: Path) -> None:
    encoded = [chip.encode("ascii") for chip in chip_ids]
    if max(map(len, encoded)) > MAX_CHIP_ID_BYTES:
        raise FormatError(f"a chip id is longer than {MAX_CHIP_ID_BYTES} bytes", where=path)
    file.create_dataset("chip_id", data=np.array(encoded, f"S{MAX_CHIP_ID_BYTES}"), track_times=False)
    stored: dict[str, h5py.Dataset] = {}
    done = 0
    for done, prediction in enumerate(chunks, 1):
        if done > len(chip_ids):
            raise FormatError(f"more predictions than the {len(chip_ids)} chips", where=path)
        names = ("reflectance" if np.ndim(prediction[0]) == 3 else "prediction", "probability")
        arrays = {name: np.asarray(a) for name, a in zip(names, prediction, strict=True) if a is not None}
        if done == 1:
            for name, array in arrays.items():
                layout = {"chunks": (1, *array.shape), **dataset_options("gzip")} if array.ndim > 1 else {}
                shape = (len(chip_ids), *array.shape)
                stored[name] = file.create_dataset(name, shape, DTYPES[name], track_times=False, **layout)
        found = {name: (array.dtype, array.shape) for name, array in arrays.items()}
        expected = {name: (np.dtype(DTYPES[name]), dataset.shape[1:]) for name, dataset in stored.items()}
        if found != expected:
            raise FormatError(f"chip {chip_ids[done - 1]}: expected {expected}, found {found}", where=path)
        for name, array in arrays.items():
            if array.ndim > 1:
                place = (done - 1, *(0 for _ in array.shape))
                stored[name].id.write_direct_chunk(place, encode("gzip", np.ascontiguousarray(array)))
            else:
                stored[name][done - 1] = array
    if done < len(chip_ids):
        raise FormatError(f"{done} predictions for {len(chip_ids)} chips", where=path)


class Predictions:
    """Guarded reader of one ``predictions.h5``.

    Attributes:
        dataset, version, content_sha256, split, model: as the file states them.
        chip_ids: in the file's order, unique.
        shape: of one chip's answer: class map (H,W), () for patches, or reflectance (C,H,W).
        probability_shape: of one chip's probability: (H,W), (K,) or None where the file has none.
    """

    def __init__(self, path: str | Path) -> None:
        """Check everything but the pixels. Raises FormatError naming what is wrong."""
        self.path = Path(path)
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                self._open(file, self.path.stat().st_size)
        except FileNotFoundError:
            hint = "make them with `tidemark evaluate`"
            raise FormatError("no predictions here", where=self.path, hint=hint) from None
        except FormatError as error:
            raise self._fault(error.what, error.hint) from None
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise self._fault(f"HDF5 cannot read the predictions ({error})") from None
        self._buffer = np.memmap(self.path, np.uint8, "r")
        self._classes: int | None = None

    @classmethod
    def open(cls, path: str | Path, folder: str | Path | None = None, split: str | None = None) -> Predictions:
        """Open, and with the data set's version folder and split given, `check` against them."""
        predictions = cls(path)
        if folder is not None:
            manifest, shards = open_split(folder, split)
            predictions.check(manifest, split, [chip for shard in shards for chip in shard.chip_ids])
        return predictions

    def _open(self, file: h5py.File, file_bytes: int) -> None:
        stated = {key: read_attribute(file, key) for key in ATTRIBUTES}
        version = stated["tidemark_predictions"]
        if version.count(".") != 1 or not version.replace(".", "0").isdecimal():
            raise FormatError(f"predictions format {version!r} is not a version")
        if tuple(map(int, version.split("."))) > tuple(map(int, FORMAT.split("."))):
            needs = f"written by a newer version: needs predictions format >= {version}, this one reads {FORMAT}"
            raise FormatError(needs, hint="upgrade tidemark")
        _, self.dataset, self.version, self.content_sha256, self.split, self.model = stated.values()

        root = h5py.h5g.open(file.id, b"/")  # asks for the name alone: `in` would follow a link out of the file
        self._answer = "reflectance" if root.links.exists(b"reflectance") else "prediction"
        optional = "probability" if self._answer == "prediction" else None
        names = check_links(file, {"chip_id", self._answer}, optional_prefix=optional)
        shapes = {name: _declared_shape(file, name) for name in names}
        n, self.shape = shapes["chip_id"][0], shapes[self._answer][1:]
        self.probability_shape = shapes["probability"][1:] if "probability" in shapes else None
        expected = {"chip_id": (n,), self._answer: (n, *self.shape)}
        expected["probability"] = (n, *(self.shape or self.probability_shape or ()))
        ranks = {"reflectance": (4,), "prediction": (1, 3), "probability": (2, 3), "chip_id": (1,)}
        for name, shape in shapes.items():
            if shape != expected.get(name) or len(shape) not in ranks[name]:
                raise FormatError(f"array {name}: shape {shape} does not fit {n} chips with answers {self.shape}")

        ids = _place(file, "chip_id", (n,), np.dtype(f"S{MAX_CHIP_ID_BYTES}"), file_bytes)[0]
        self._places = {
            name: _place(file, name, shapes[name], np.dtype(DTYPES[name]), file_bytes)[1:]
            for name in names
            if name != "chip_id"
        }
        self.chip_ids = [chip.decode("ascii", "replace") for chip in ids[:].tolist()]
        self._index = {chip: i for i, chip in enumerate(self.chip_ids)}
        if len(self._index) != n:
            repeated = [chip for chip, count in Counter(self.chip_ids).items() if count > 1]
            raise FormatError(f"{len(repeated)} chips are repeated: {_some(repeated)}")

    def check(self, manifest: Manifest, split: str, chip_ids: Sequence[str]) -> None:
        """Refuse predictions that are not exactly for these chips; from then on `read` checks the class ids.

        Args:
            manifest: of the data set that is to be scored.
            split: name of the split.
            chip_ids: that split's chips.

        Raises:
            FormatError: another data set, version, content or split; missing or extra chips with their counts; another
                shape or number of classes.
        """
        stated = {
            "data set": (manifest.name, self.dataset),
            "data set version": (manifest.version, self.version),
            "content_sha256": (manifest.content_sha256, self.content_sha256),
            "split": (split, self.split),
        }
        for what, (expected, found) in stated.items():
            if expected != found:
                raise self._fault(f"predictions for another {what}: expected {expected}, found {found}")
        missing, extra = sorted(set(chip_ids) - set(self._index)), sorted(set(self._index) - set(chip_ids))
        faults = [f"{len(ids)} {what} ({_some(ids)})" for what, ids in (("missing", missing), ("extra", extra)) if ids]
        if faults:
            raise self._fault(f"of the {len(chip_ids)} chips of {manifest.name} {split}: {', '.join(faults)}")
        classes, label = len(manifest.task.classes), manifest.label_array
        needed = "reflectance" if label.role == "target" else "prediction"
        if self._answer != needed:
            raise self._fault(f"expected the array {needed}, found {self._answer}")
        if self.shape != label.shape:
            raise self._fault(f"array {needed}: expected shape {label.shape} a chip, found {self.shape}")
        if needed == "reflectance":
            return
        if not self.shape and self.probability_shape not in (None, (classes,)):
            raise self._fault(f"array probability: expected {classes} classes, found {self.probability_shape[0]}")
        self._classes = classes

    def read(self, chip_id: str) -> Prediction:
        """One chip's class ids uint8 (H,W) or () and round(255 p) uint8 (H,W) or (K,) or None.

        Of a harmonization: reflectance float16 (C,H,W), and None.
        """
        if chip_id not in self._index:
            raise self._fault(f"no chip {chip_id!r}")
        if self._answer == "reflectance":
            return self._read("reflectance", chip_id), None
        class_map = self._read("prediction", chip_id)
        if self._classes is not None:
            wrong = class_map[(class_map >= self._classes) & (class_map != NODATA)]
            if wrong.size:
                allowed = f"0 to {self._classes - 1} or {NODATA}"
                raise self._fault(f"chip {chip_id}: expected classes {allowed}, found {wrong.min()}")
        return class_map, self._read("probability", chip_id) if "probability" in self._places else None

    def _read(self, name: str, chip_id: str) -> np.ndarray:
        offset, size, codec = self._places[name]
        i = self._index[chip_id]
        frame = self._buffer[int(offset[i]) : int(offset[i]) + int(size[i])]
        out = np.empty(self.probability_shape if name == "probability" else self.shape, DTYPES[name])
        if codec == "none":
            out.reshape(-1)[:] = frame
            return out
        try:
            decode(codec, memoryview(frame), out)
        except FormatError as error:
            raise self._fault(f"array {name}, chip {chip_id}: {error.what}") from None
        return out

    def _fault(self, what: str, hint: str | None = None) -> FormatError:
        return FormatError(what, where=self.path, hint=hint)


def _declared_shape(file: h5py.File, name: str) -> tuple[int, ...]:
    try:
        shape = h5py.h5d.open(file.id, name.encode()).shape
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise FormatError(f"{name!r} is not a dataset") from None
    if not shape or 0 in shape or 2 * math.prod(shape[1:]) > MAX_CHIP_BYTES:
        raise FormatError(f"array {name}: shape {shape} is empty or a chip is over {MAX_CHIP_BYTES} bytes")
    return shape


def _place(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, file_bytes: int):
    """Guard one dataset; return it with the offset and size (N,) of every chip in the file and its codec."""
    codec, chunk = ("gzip", (1, *shape[1:])) if len(shape) > 2 else ("none", None)
    dataset = open_dataset(file, name, shape, dtype, chunk, codec)
    if chunk is not None:
        declared = Array(name=name, dtype="uint8", shape=shape[-2:], role="mask")  # only its name matters for chunks
        places = place_chunks(dataset, declared, codec, file_bytes)
        return dataset, places.offset, places.size, codec
    start, chip_bytes = dataset.id.get_offset(), math.prod(shape[1:]) * dtype.itemsize
    if start is None or start + shape[0] * chip_bytes > file_bytes:
        raise FormatError(f"array {name}: {shape[0]} chips are declared, the file of {file_bytes} bytes holds fewer")
    return dataset, start + np.arange(shape[0]) * chip_bytes, np.full(shape[0], chip_bytes), codec


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:3]) + (", …" if len(ids) > 3 else "")
