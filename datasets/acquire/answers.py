"""Answers of the archives, and in words what a missing or refusing one means."""

from __future__ import annotations

import json
from typing import Any

import requests
from urllib3 import exceptions as urllib3_errors

from ...errors import ArchiveError, TidemarkError
from .hosts import Services, origin, without_query
from .login import form_of, sign_in
from .session import MAX_REDIRECTS, GuardedAdapter, LoginError

MAX_ANSWER_BYTES = 64 << 20


class NotThereError(ArchiveError):
    """The archive has no such file (404, 410)."""


def request(
    session: requests.Session, method: str, url: str, *, also: tuple[int, ...] = (), **options: Any
) -> requests.Response:
    """An answered request, redirects followed; the caller closes it (``with``).

    A final answer that is neither 2xx nor one of ``also`` is an error.

    Raises:
        ArchiveError: it could not be sent, or it is refused; one line that names the host.
        InputError: the URL, or a redirect, leads to a host that is not on the list.
    """
    adapter = session.get_adapter(url) if url.startswith(("http://", "https://")) else None
    before = adapter.logins if isinstance(adapter, GuardedAdapter) else 0
    answer = _send(session, method, url, options)
    if isinstance(adapter, GuardedAdapter) and (login := form_of(adapter.services, url, answer.url)):
        with answer, adapter.lock:
            if adapter.logins == before:  # else another thread has just signed in
                sign_in(session, login, answer)
                adapter.logins += 1
        answer = _send(session, method, url, options)
    if not answer.ok and answer.status_code not in also:
        answer.close()
        raise status_error(answer, session.get_adapter(answer.url))
    return answer


def _send(session: requests.Session, method: str, url: str, options: dict[str, Any]) -> requests.Response:
    try:
        return session.request(method, url, stream=True, **options)
    except TidemarkError:
        raise
    except (requests.RequestException, urllib3_errors.HTTPError) as error:
        raise connection_error(error, url) from None


def fetch_bytes(
    url: str, session: requests.Session, method: str = "GET", *, max_bytes: int = MAX_ANSWER_BYTES, **options: Any
) -> bytes:
    """The whole body of an answer, ``options`` as for ``requests`` (json, params, data). Raises as ``request``."""
    with request(session, method, url, **options) as answer:
        try:
            body = answer.raw.read(max_bytes + 1, decode_content=True)
        except (requests.RequestException, urllib3_errors.HTTPError, OSError) as error:
            raise connection_error(error, url) from None
    if len(body) > max_bytes:
        raise ArchiveError(f"an answer of over {max_bytes} bytes", where=without_query(url))
    return body


def fetch_json(url: str, session: requests.Session, method: str = "GET", **options: Any) -> Any:
    """The JSON value of an answer. Raises as ``request``."""
    try:
        return json.loads(fetch_bytes(url, session, method, **options))
    except (ValueError, RecursionError):
        raise ArchiveError(
            "the answer is no JSON", where=without_query(url), hint="is the service's URL right?"
        ) from None


def connection_error(error: Exception, url: str) -> ArchiveError:
    """What went wrong below HTTP. The error's own text stays out: it can hold a signed URL."""
    names = {type(e).__name__ for e in _chain(error)}
    if "TooManyRedirects" in names:
        what, hint = f"more than {MAX_REDIRECTS} redirects", "check the credentials: a login that fails goes in circles"
    elif names & {"SSLError", "SSLCertVerificationError"}:
        what, hint = "its certificate is not accepted", "check the clock, and REQUESTS_CA_BUNDLE behind a proxy"
    elif names & {"ProxyError"}:
        what, hint = "the proxy refuses", "check HTTPS_PROXY"
    elif names & {"NameResolutionError", "gaierror"}:
        what, hint = "its name cannot be found", "are you connected?"
    elif names & {"ConnectTimeout", "ConnectTimeoutError", "ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        what, hint = "does not answer in time", "try again later; what has come is kept"
    else:
        what, hint = f"the connection failed ({type(error).__name__})", "run it again; what has come is kept"
    return ArchiveError(what, where=without_query(url), hint=hint)


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return found


def status_error(answer: requests.Response, adapter: Any) -> ArchiveError:
    """What an archive's refusal means and what to do about it."""
    status, where = answer.status_code, without_query(answer.url)
    names = _login_names(adapter.services, answer.url) if isinstance(adapter, GuardedAdapter) else None
    if status == 401:
        what = "the login is missing, wrong or expired (401)"
        hint = f"set {names}" if names else "the archive has begun to ask for a login"
        return LoginError(what, where=where, hint=hint)
    elif status == 403:
        what = "this account may not have it (403)"
        hint = "accept the archive's terms and authorise its application in your profile there, or renew the token"
    elif status in (404, 410):
        hint = "the product was withdrawn or its name is wrong: search again"
        return NotThereError(f"not there ({status})", where=where, hint=hint)
    elif status == 429:
        wait = answer.headers.get("Retry-After", "")
        what, hint = "too many requests (429)", f"try again in {wait} s" if wait.isdecimal() else "try again later"
    elif status >= 500:
        what, hint = f"the archive has a fault of its own ({status})", "try again later; what has come is kept"
    else:
        what, hint = f"the archive answered {status}", "try again later"
    return ArchiveError(what, where=where, hint=hint)


def _login_names(services: Services, url: str) -> str | None:
    host = origin(url)
    for service in services.services.values():
        login = service.login
        if login is not None and (host in service.hosts or host == origin(login.url)):
            both = f"{login.username} and {login.password}" if login.username else ""
            return f"{' or '.join(filter(None, (login.token, both)))}, or a line for {origin(login.url)} in ~/.netrc"
    return None
