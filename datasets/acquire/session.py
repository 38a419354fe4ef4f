"""HTTP to the archives: listed hosts only, at every hop, and each secret to the host that it belongs to.

The rules sit in the transport adapter, below redirects and below the client libraries, so that a session of
``asf_search`` or ``pystac_client`` keeps them too.
"""

from __future__ import annotations

import netrc
import os
import threading
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3 import exceptions as urllib3_errors
from urllib3.util.retry import Retry

from ... import __version__
from ...errors import ArchiveError, ConfigError
from .hosts import Login, Services, origin

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
MAX_REDIRECTS = 10


class LoginError(ArchiveError):
    """A login is missing, wrong or expired: no other file of that archive will come either."""


@dataclass(frozen=True)
class Patience:
    """How long a faltering archive is borne with."""

    attempts: int = 5  # of one request, and of a transfer that gains nothing
    backoff_s: float = 1.0  # before the second retry, doubled each time, plus up to as much again at random
    longest_s: float = 300.0  # a Retry-After above this ends in an error that names it
    connect_s: float = 15.0
    silence_s: float = 60.0  # without any byte
    slow_s: float = 60.0  # a transfer below least_rate for so long is started again
    least_rate: float = 2048.0  # bytes a second


class _Retry(Retry):
    """Waits as the archive asks with Retry-After, but not for hours."""

    def increment(self, method=None, url=None, response=None, error=None, _pool=None, _stacktrace=None):
        wait = None if response is None else self.get_retry_after(response)
        if wait is not None and wait > self.backoff_max:
            raise urllib3_errors.MaxRetryError(_pool, url, urllib3_errors.ResponseError("asks to wait too long"))
        return super().increment(method, url, response, error, _pool, _stacktrace)


class GuardedAdapter(HTTPAdapter):
    """Sends a request only to a host of the list, with that host's credentials and no others."""

    def __init__(self, services: Services, patience: Patience) -> None:
        self.services, self.patience = services, patience
        self.logins, self.lock = 0, threading.Lock()  # through forms; one thread at a time
        self._plain = {origin(s.url) for s in services.services.values() if s.url.startswith("http://")}
        super().__init__(
            pool_maxsize=32,
            max_retries=_Retry(
                total=patience.attempts - 1,
                redirect=0,
                status_forcelist=TRANSIENT,
                allowed_methods={"GET", "HEAD", "POST"},  # the only POSTs are searches
                backoff_factor=patience.backoff_s,
                backoff_jitter=patience.backoff_s,
                backoff_max=patience.longest_s,
                raise_on_status=False,
            ),
        )

    def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):
        host = self.services.check(request.url)
        if host in self._plain:  # this machine; asf_search knows https only
            request.url = request.url.replace("https://", "http://", 1)
        request.headers.pop("Authorization", None)  # whoever put it there, requests itself (.netrc) included
        secret = authorization(self.services, host)
        if secret is not None:
            request.headers["Authorization"] = secret
        timeout = timeout or (self.patience.connect_s, self.patience.silence_s)
        return super().send(request, stream, timeout, verify, cert, proxies)


def open_session(services: Services, patience: Patience | None = None) -> requests.Session:
    """A session for the archives; threads may share it."""
    session = guard(requests.Session(), services, patience)
    session.headers["User-Agent"] = f"tidemark/{__version__} {requests.utils.default_user_agent()}"
    return session


def guard(session: requests.Session, services: Services, patience: Patience | None = None) -> requests.Session:
    """Put the rules under any session of ``requests``, such as one that a client library made."""
    session.adapters.clear()
    adapter = GuardedAdapter(services, patience or Patience())
    for scheme in ("https://", "http://"):
        session.mount(scheme, adapter)
    session.max_redirects = MAX_REDIRECTS
    return session


def authorization(services: Services, host: str) -> str | None:
    """The ``Authorization`` header for a host, from the environment or ``.netrc``; None where it needs none."""
    for service in services.services.values():
        login = service.login
        if login is None:
            continue
        if host in login.hosts and (token := os.environ.get(login.token or "")):
            return f"Bearer {_header_safe(token, login.token)}"
        if login.way == "basic" and host == origin(login.url):
            user, password = credentials(login)
            if user and password:
                return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"
    return None


def credentials(login: Login) -> tuple[str | None, str | None]:
    """Name and password from the environment or, both missing there, from ``.netrc``. Raises ConfigError."""
    user, password = os.environ.get(login.username or ""), os.environ.get(login.password or "")
    return (user, password) if user and password else _from_netrc(origin(login.url))


def _header_safe(token: str, name: str) -> str:
    token = token.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("holds no token (a space, a line break or a foreign character)", where=f"${name}")
    return token


def _from_netrc(host: str) -> tuple[str | None, str | None]:
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc")
    if not path.is_file():
        return None, None
    try:
        found = netrc.netrc(path).hosts.get(host)
    except (netrc.NetrcParseError, OSError, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError("cannot be read" + (f" (line {line})" if line else ""), where=path) from None
    return (found[0], found[2]) if found else (None, None)
