"""Every error that Tidemark raises on purpose.

Each message says what is wrong, where (file, chip, key) and what to do. The command line prints that one line
and ends with the class's ``exit_code``; a traceback appears only with ``--debug``.
"""

from __future__ import annotations


class TidemarkError(Exception):
    """Base of all errors of this package (exit code 1).

    Args:
        what: what is wrong, with the expected and the found value where there are two.
        where: the file, shard, chip, array or key concerned.
        hint: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: object = None, hint: str | None = None) -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what, where, hint)

    def __str__(self) -> str:
        line = self.what if self.where is None else f"{self.where}: {self.what}"
        return printable(" ".join((line if self.hint is None else f"{line}; {self.hint}").split()))

    def __reduce__(self):  # keyword arguments survive the trip between worker processes
        return _rebuild, (type(self), self.what, None if self.where is None else str(self.where), self.hint)


def printable(text: str) -> str:
    """A line of text that may hold a stranger's names: control characters and their like as ``\\x1b`` or ``\\n``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _rebuild(kind: type[TidemarkError], what: str, where: str | None, hint: str | None) -> TidemarkError:
    return kind(what, where=where, hint=hint)


class InputError(TidemarkError):
    """Wrong usage or bad input from outside (exit code 2)."""

    exit_code = 2


class ConfigError(InputError):
    """A recipe, a table or a build specification is not acceptable."""


class FormatError(InputError):
    """A manifest, shard or predictions file does not have the declared form."""


class ChecksumError(FormatError):
    """Bytes on disk are not the bytes that were published."""


class SceneError(InputError):
    """One scene cannot be used; a build skips it and ends with exit code 3."""


class LeakError(InputError):
    """The same ground appears in two splits."""


class WeightsError(InputError):
    """Weights that cannot be loaded safely, or that belong to another input."""


class BusyError(InputError):
    """Another process is working on the same output."""


class DeviceError(InputError):
    """The device asked for is not there or has too little memory."""


class HubError(TidemarkError):
    """The Hugging Face Hub, or the way to it, failed or refused (exit code 1)."""


class ArchiveError(TidemarkError):
    """An archive of raw scenes, or the way to it, failed or refused (exit code 1)."""


class StorageError(TidemarkError):
    """Writing failed: disk full, not writable or broken (exit code 1)."""


class PartialResultError(TidemarkError):
    """Some parts were done and kept, others failed (exit code 3)."""

    exit_code = 3
