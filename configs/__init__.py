"""Recipes: YAML files read safely into a yacs node.

yacs' own ``merge_from_file`` executes ``.py`` files; nothing here calls it. A recipe is data: plain YAML without tags,
anchors or aliases, of bounded size, with known keys and types only.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from os.path import isfile
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from ..errors import ConfigError
from .defaults import BOUNDS, CHOICES, FREE, SUMS, get_defaults

MAX_BYTES = 64 << 10
MAX_SCALAR = 4 << 10  # characters
MAX_DEPTH = 12
_ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,63}")


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without tags, anchors, aliases, merge keys, repeated keys, long scalars and deep nesting."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise ConfigError(f"line {line}: anchors and aliases are not allowed", hint="write the value out")
        if event.tag is not None:
            raise ConfigError(f"line {line}: the tag {event.tag[:80]!r} is not allowed", hint="write plain YAML")
        if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_SCALAR:
            raise ConfigError(f"line {line}: a value of {len(event.value)} characters, over the limit of {MAX_SCALAR}")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ConfigError(f"line {line}: nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def fetch_flow_collection_start(self, token_class):
        if self.flow_level >= MAX_DEPTH:  # the scanner looks far ahead, in quadratic time
            raise ConfigError(f"line {self.line + 1}: nested deeper than {MAX_DEPTH} levels")
        super().fetch_flow_collection_start(token_class)

    def construct_mapping(self, node, deep=False):
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                raise ConfigError(f"line {key.start_mark.line + 1}: a key must be a plain word")
            if key.value in keys:
                raise ConfigError(f"line {key.start_mark.line + 1}: the key {key.value!r} repeats")
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


# A date stays the text it is: every value of a recipe is a JSON value.
_StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str, where: object = None) -> Any:
    """One YAML document of JSON values from text. Raises ConfigError with the line of the first fault."""
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except ConfigError as error:
        raise ConfigError(error.what, where=where, hint=error.hint) from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(f"not valid YAML ({error})", where=where) from None
    _check_finite(value, where)
    return value


def read_yaml(path: str | Path, max_bytes: int = MAX_BYTES) -> Any:
    """Read a ``.yaml`` file of at most ``max_bytes`` bytes. Raises ConfigError; nothing is ever executed."""
    path = Path(path)
    if path.suffix != ".yaml":
        raise ConfigError(f"only .yaml files are read, found {path.suffix or 'no suffix'!r}", where=path)
    try:
        if not path.is_file():
            raise ConfigError("no such file", where=path, hint="see `tidemark list` for the recipes that come along")
        with open(path, "rb") as file:
            raw = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read ({error.strerror})", where=path) from None
    if len(raw) > max_bytes:
        raise ConfigError(f"over the limit of {max_bytes} bytes", where=path)
    try:
        return parse_yaml(raw.decode("utf-8"), where=path)
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", where=path) from None


def find_recipe(name: str | Path) -> Path:
    """A recipe's file: the path as given, or below the installed package's ``configs``.

    ``configs/ombria/unet.yaml``, ``ombria/unet.yaml`` and ``ombria/unet`` name the same recipe.
    """
    given = Path(name)
    if isfile(given) or given.is_absolute():  # of pathlib's, a name that is too long is an error
        return given
    room = Path(__file__).parent
    inside = Path(*given.parts[1:]) if given.parts[:1] == ("configs",) else given
    for candidate in (room / inside, room / f"{inside}.yaml"):
        if isfile(candidate):
            return candidate
    if given.suffix in ("", ".yaml"):
        close = difflib.get_close_matches(str(inside).removesuffix(".yaml"), recipes(), n=1, cutoff=0.4)
        raise ConfigError(
            "no such recipe",
            where=name,
            hint=f"did you mean {close[0]}?" if close else f"there is {', '.join(recipes())}",
        )
    return given


def recipes() -> list[str]:
    """Names of the recipes that come with the package, e.g. ``ombria/unet``."""
    room = Path(__file__).parent
    return sorted(
        str(path.relative_to(room).with_suffix(""))
        for path in room.glob("*/*.yaml")
        if path.parent.name not in ("tables", "demo")
    )


def load_config(name: str | Path, overrides: Sequence[str] = ()) -> CfgNode:
    """A recipe over the defaults, then ``KEY VALUE`` pairs over both; the result is frozen.

    Args:
        name: path or name of a recipe, see :func:`find_recipe`.
        overrides: ``["TRAIN.EPOCHS", "5", "DATA.BANDS", "[before, after]"]``; values are YAML.

    Raises:
        ConfigError: an unknown key (with the nearest valid one), a wrong type or value, an unsafe file.
    """
    path = find_recipe(name)
    return make_config(read_yaml(path), overrides, where=path)


def make_config(
    values: Mapping[str, Any] | None = None, overrides: Sequence[str] = (), where: object = None
) -> CfgNode:
    """As :func:`load_config`, from a nested mapping instead of a file."""
    if values is not None and not isinstance(values, Mapping):
        raise ConfigError(f"expected a mapping of keys, found {type(values).__name__}", where=where)
    cfg = get_defaults()
    _merge(cfg, values or {}, (), where)
    if len(overrides) % 2:
        raise ConfigError(f"overrides come as KEY VALUE pairs, {overrides[-1]!r} has no value")
    for key, text in zip(overrides[::2], overrides[1::2], strict=True):
        nested: Any = parse_yaml(text, where=key)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(cfg, nested, (), None)
    cfg.freeze()
    return cfg


def to_dict(node: Any) -> Any:
    """Plain dicts and lists of a configuration, for JSON or YAML."""
    if isinstance(node, Mapping):
        return {key: to_dict(value) for key, value in node.items()}
    return [to_dict(value) for value in node] if isinstance(node, list | tuple) else node


def dump(cfg: Mapping[str, Any]) -> str:
    """YAML text that :func:`load_config` reads back to the same configuration."""
    return yaml.safe_dump(to_dict(cfg), sort_keys=False, allow_unicode=True)


def _merge(node: CfgNode, values: Mapping[str, Any], path: tuple[str, ...], where: object) -> None:
    for key, value in values.items():
        name = ".".join((*path, key))
        if ".".join(path) in FREE:
            if not _ARGUMENT.fullmatch(key):
                raise ConfigError(f"{name}: an argument's name has small letters, digits and _", where=where)
            node[key] = CfgNode(dict(value), new_allowed=True) if isinstance(value, Mapping) else value
        elif key not in node:
            raise ConfigError(f"unknown key {name}", where=where, hint=_nearest(name))
        elif isinstance(node[key], CfgNode):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{name} is a group of keys, found {_type(value)}", where=where)
            _merge(node[key], value, (*path, key), where)
        else:
            node[key] = _checked(name, value, node[key], where)


def _checked(name: str, value: Any, default: Any, where: object) -> Any:
    if isinstance(default, float) and not isinstance(value, bool):
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                pass
        value = float(value) if isinstance(value, int) else value
    if type(value) is not type(default):
        raise ConfigError(f"{name}: expected {_type(default)}, found {_type(value)} {str(value)[:80]!r}", where=where)
    if isinstance(value, list):
        value = [_element(name, item, where) for item in value]
    terms = [part.rpartition("*")[2].strip() for part in value.split("+")] if name in SUMS else [value]
    if name in CHOICES and any(term not in CHOICES[name] for term in terms):
        raise ConfigError(f"{name}: {value!r} is not one of {', '.join(CHOICES[name])}", where=where)
    if name in BOUNDS:
        low, high = BOUNDS[name]
        if not low <= value <= high:
            raise ConfigError(f"{name}: {value} is outside {low} to {high}", where=where)
    return value


def _element(name: str, item: Any, where: object) -> Any:
    number = isinstance(item, int | float) and not isinstance(item, bool)
    if name == "TRAIN.CLASS_WEIGHTS":
        if not number or item < 0:
            raise ConfigError(f"{name}: expected numbers >= 0, found {item!r}", where=where)
        return float(item)
    if not isinstance(item, str):
        raise ConfigError(f"{name}: expected text, found {_type(item)} {item!r}", where=where)
    return item


def _nearest(name: str) -> str:
    names = list(_leaves(get_defaults()))
    close = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.0)
    same_leaf = [n for n in names if n.rsplit(".", 1)[-1] == name.upper().rsplit(".", 1)[-1]]
    return f"did you mean {(same_leaf or close)[0]}?"


def _leaves(node: Mapping[str, Any], path: tuple[str, ...] = ()):
    for key, value in node.items():
        if isinstance(value, Mapping) and ".".join((*path, key)) not in FREE:
            yield from _leaves(value, (*path, key))
        else:
            yield ".".join((*path, key))


def _type(value: Any) -> str:
    names = {
        dict: "a group of keys",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)


def _check_finite(value: Any, where: object) -> None:
    if isinstance(value, float) and not math.isfinite(value) or isinstance(value, int) and abs(value) >= 2**63:
        hint = "pixels that are NaN need no nodata value" if value != value else None
        raise ConfigError("a number is not finite or beyond 64 bits", where=where, hint=hint)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        _check_finite(child, where)
