"""Parameters of builders from the command line."""

import pytest
from tidemark.datasets.command import _executor, build_command, parse_parameters
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


def test_the_source_is_no_parameter(tmp_path):
    with pytest.raises(InputError, match="no parameter 'source', there is none"):
        build_command("custom", tmp_path, tmp_path, {"source": "x"}, None, {"codec": "blosc", "workers": 1})


def test_a_parameter_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(InputError, match="despeckle must be above 0 and at most 100, found 'abc'"):
        build_command("alos-dswe", tmp_path, tmp_path, {"despeckle": "abc"}, None, {"codec": "blosc", "workers": 1})


def test_without_workers_nothing_is_begun(tmp_path):
    with pytest.raises(InputError, match="--workers 0: at least 1"):
        build_command("ombria", tmp_path, tmp_path, {}, "local", {"codec": "blosc", "workers": 0})


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer_is_named(address):
    dask = pytest.importorskip("dask")
    pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(InputError, match=f"--dask {address}: no scheduler answers .*; give tcp://HOST:PORT"),
        _executor(address, 1),
    ):
        pass
