"""The services that ``tidemark acquire`` may talk to: the allow-list of hosts, and where credentials come from."""

from __future__ import annotations

import ipaddress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ... import configs
from ...errors import ConfigError, InputError

DEFAULT = Path(configs.__file__).parent / "acquire.yaml"
Name = Literal["usgs", "earth-search", "planetary-computer", "asf", "gfc", "hand"]


def origin(url: str) -> str:
    """``host`` or ``host:port`` of an acceptable URL: https, or http to this machine, without a user or password.

    Raises InputError for any other.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise InputError("not a URL", where=str(url)[:200]) from None
    if not host or parts.scheme not in ("http", "https") or parts.username is not None or parts.password is not None:
        raise InputError("not a plain http(s) URL", where=without_query(url))
    if parts.scheme == "http" and not _is_loopback(host):
        raise InputError("http:// is accepted for this machine only", where=without_query(url), hint="use https://")
    usual = {"http": 80, "https": 443}[parts.scheme]
    return host if port in (None, usual) else f"{host}:{port}"


def without_query(url: str) -> str:
    """A URL as it may be shown and kept: signatures and tokens lie in its query or before the ``@``."""
    parts = urlsplit(url)
    place = parts.netloc.rsplit("@", 1)[-1]
    return f"{parts.scheme}://{place}{parts.path}"[:300] if parts.scheme else parts.path[:300]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(value: str) -> str:
    try:
        origin(value)
    except InputError as error:
        raise ValueError(str(error)) from None
    return value.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Login(_Strict):
    """Names of the environment variables (never the secrets), and the site whose ``.netrc`` entry also serves.

    A token goes to ``hosts``; the password to the site of ``url`` alone, as Basic or through the site's form.
    """

    url: Url
    way: Literal["basic", "form"] = "basic"
    hosts: list[str] = []
    username: str = ""
    password: str = ""
    token: str = ""


class Sign(_Strict):
    """A service that hands out a query string (Azure SAS), to be sent to ``hosts`` only."""

    url: Url
    hosts: list[str]
    key: str = ""


class Service(_Strict):
    """One archive: its API or the root of its files, its collections by our names, the hosts of its files."""

    url: Url
    collections: dict[str, str] = {}
    hosts: list[str]
    login: Login | None = None
    sign: Sign | None = None


class Services(_Strict):
    """All archives of a configuration."""

    services: dict[Name, Service]

    @cached_property
    def hosts(self) -> frozenset[str]:
        """Every ``host`` or ``host:port`` that may be contacted."""
        found: set[str] = set()
        for service in self.services.values():
            found |= {origin(service.url), *(host.lower() for host in service.hosts)}
            found |= {origin(part.url) for part in (service.login, service.sign) if part is not None}
        return frozenset(found)

    def service(self, name: str) -> Service:
        """One archive. Raises ConfigError where the configuration does not name it."""
        if name not in self.services:
            raise ConfigError(f"the configuration names no service {name}", hint=f"there is {', '.join(self.services)}")
        return self.services[name]

    def collection(self, service: str, ours: str) -> str:
        """The archive's name of one of its collections."""
        known = self.service(service).collections
        if ours not in known:
            raise ConfigError(f"services.{service}.collections names no {ours}")
        return known[ours]

    def check(self, url: str) -> str:
        """The URL's host. Raises InputError where it is not on the list."""
        host = origin(url)
        if host not in self.hosts:
            raise InputError(
                f"the host {host} is not on the list of archives", where=without_query(url),
                hint="add it to a copy of configs/acquire.yaml and give that as --config, if you trust it",
            )  # fmt: skip
        return host


def load_services(path: str | Path | None = None) -> Services:
    """The services of a file, by default of ``configs/acquire.yaml``. Raises ConfigError with the key at fault."""
    path = DEFAULT if path is None else Path(path)
    try:
        return Services.model_validate(configs.read_yaml(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", where=path) from None
