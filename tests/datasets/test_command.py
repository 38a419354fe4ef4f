"""Parameters of builders from the command line."""

import pytest
from tidemark.datasets.command import build_command, parse_parameters
from tidemark.errors import InputError


def test_values_that_read_as_numbers_become_numbers():
    given = ["orbits=ascending", "max_days=3", "despeckle=0.35", "strict=true", "name=a=b", "id=[1]"]
    assert parse_parameters(given) == {
        "orbits": "ascending", "max_days": 3, "despeckle": 0.35, "strict": True, "name": "a=b", "id": "[1]",
    }  # fmt: skip


def test_lists_are_read_where_they_are_asked_for():
    assert parse_parameters(["widths=[64, 32]"], lists=True) == {"widths": [64, 32]}
    assert parse_parameters(["widths=[64, 32]"]) == {"widths": "[64, 32]"}


@pytest.mark.parametrize("text", ["orbits", "=3", "a b=3"])
def test_what_is_no_parameter_is_refused(text):
    with pytest.raises(InputError, match="is not NAME=VALUE"):
        parse_parameters([text])


def test_an_unknown_parameter_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match="no parameter 'orbit', there is held_out, orbits, split"):
        build_command("tibet-water", tmp_path, tmp_path, {"orbit": "both"}, None, {"codec": "blosc", "workers": 1})
