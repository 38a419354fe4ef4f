"""What an error says is one line that a terminal may be trusted with."""

from __future__ import annotations

from tidemark.errors import FormatError


def test_what_cannot_be_printed_is_written_out():
    error = FormatError("the class 'a\x1b[31m\u202eb'", where="data/\udcff.h5", hint="rename\n it\x07")
    assert str(error) == r"data/\udcff.h5: the class 'a\x1b[31m\u202eb'; rename it\x07"


def test_letters_of_every_language_stay():
    assert str(FormatError("Fluß 河川 м²", hint="… ≥ 3")) == "Fluß 河川 м²; … ≥ 3"
