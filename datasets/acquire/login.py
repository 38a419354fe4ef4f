"""Logins through a web form, as that of the USGS (ers.cr.usgs.gov): a redirect to a page, a POST, a cookie.

The page's hidden fields (a token against forged requests) go back with the name and the password, to the site of the
configuration and to no other: the answer to the POST is not followed as a POST, whatever it asks for.
"""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import urljoin

import requests
from urllib3 import exceptions as urllib3_errors

from ...errors import ArchiveError
from .hosts import Login, Services, origin
from .session import LoginError, credentials

MAX_PAGE_BYTES = 1 << 20


def form_of(services: Services, asked: str, answered: str) -> Login | None:
    """The login whose form answered instead of what was asked for."""
    host = origin(answered)
    for service in services.services.values():
        login = service.login
        if login is not None and login.way == "form" and host == origin(login.url) != origin(asked):
            return login
    return None


def sign_in(session: requests.Session, login: Login, answer: requests.Response) -> None:
    """Fill in the form that came as ``answer``; the session keeps the cookie.

    Raises:
        LoginError: there are no credentials, or the site does not accept them.
        ArchiveError: it does not answer.
    """
    user, password = credentials(login)
    if not (user and password):
        raise LoginError(
            "the login is missing", where=origin(login.url),
            hint=f"set {login.username} and {login.password}, or a line for {origin(login.url)} in ~/.netrc",
        )  # fmt: skip
    try:
        page = answer.raw.read(MAX_PAGE_BYTES, decode_content=True).decode("utf-8", "replace")
        fields = _hidden(page) | {"username": user, "password": password}
        options = {"allow_redirects": False, "stream": True, "headers": {"Referer": login.url}}
        with session.post(login.url, data=fields, **options) as reply:
            target = reply.headers.get("Location", "")
            accepted = reply.is_redirect and reply.status_code in (302, 303)
    except (requests.RequestException, urllib3_errors.HTTPError, UnicodeError) as error:
        raise ArchiveError(f"the login failed ({type(error).__name__})", where=origin(login.url)) from None
    if not accepted or urljoin(login.url, target).partition("?")[0] == login.url:
        raise LoginError(
            "the login was not accepted", where=origin(login.url),
            hint=f"check {login.username} and {login.password} in a browser",
        )  # fmt: skip


class _Inputs(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "input" and found.get("type") == "hidden" and found.get("name"):
            self.hidden[found["name"]] = found.get("value") or ""


def _hidden(page: str) -> dict[str, str]:
    """Hidden fields of a page's forms."""
    parser = _Inputs()
    parser.feed(page)
    return parser.hidden
