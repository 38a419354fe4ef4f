"""Short-lived signatures that some archives ask for in a file's URL (Azure SAS of the Planetary Computer)."""

from __future__ import annotations

import datetime
import os
import threading
from urllib.parse import urlsplit

import requests

from ...errors import ArchiveError
from .answers import fetch_json
from .hosts import Service, origin, without_query

RENEW_BEFORE = datetime.timedelta(minutes=5)


class Signer:
    """Adds a service's signature to URLs of the hosts that it is for, and to no others; threads may share it."""

    def __init__(self, service: Service, session: requests.Session) -> None:
        self._sign, self._session = service.sign, session
        self._hosts = frozenset(host.lower() for host in service.sign.hosts) if service.sign else frozenset()
        self._token, self._until = "", datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        self._lock = threading.Lock()

    def __call__(self, url: str) -> str:
        """The URL, signed where its host asks for it. Raises ArchiveError where no signature is to be had."""
        if origin(url) not in self._hosts or urlsplit(url).query:
            return url
        with self._lock:
            if datetime.datetime.now(datetime.UTC) > self._until - RENEW_BEFORE:
                self._renew()
            return f"{url}?{self._token}"

    def _renew(self) -> None:
        key = os.environ.get(self._sign.key or "")
        headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
        answer = fetch_json(self._sign.url, self._session, headers=headers, allow_redirects=False)  # the key stays here
        try:
            token, until = answer["token"], datetime.datetime.fromisoformat(answer["msft:expiry"])
        except (TypeError, KeyError, ValueError) as error:
            raise ArchiveError(f"hands out no signature ({error})", where=without_query(self._sign.url)) from None
        if not (isinstance(token, str) and token.isascii() and token.isprintable()) or set(token) & set(" #?"):
            raise ArchiveError("the signature is not a query", where=without_query(self._sign.url))
        self._token, self._until = token, until if until.tzinfo else until.replace(tzinfo=datetime.UTC)
