"""A login form as the USGS has it: the fields of ers.cr.usgs.gov/login as github.com/yannforget/landsatxplore
(landsatxplore/earthexplorer.py) fills them in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs

import pytest
from tidemark.datasets.acquire.answers import fetch_bytes
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.acquire.transport import Item, download
from tidemark.errors import ArchiveError

PASSWORD = "p&ssw=rd of nobody"
FORM = b"""<html><form id="loginForm" action="/login" method="post">
<input type="hidden" name="csrf" value="t&amp;k" id="csrf"><input type="hidden" name="__ncforminfo" value="abc">
<input name="username"><input type="password" name="password"></form></html>"""


@pytest.fixture
def sites(new_archive):
    """Data and login: the cookie of the one opens the other, as both lie in one domain."""
    data, login = new_archive(), new_archive()
    data.put("/data/a.tif", b"pixels" * 100)

    def file(handler, body):
        if "EROS_SSO=yes" in handler.headers.get("Cookie", ""):
            handler.send_file(data.files["/data/a.tif"])
        else:
            handler.reply(302, b"", {"Location": f"{login.url}/login?RET_ADDR=x"})

    def form(handler, body):
        if handler.command == "GET":
            return handler.reply(200, FORM, {"Content-Type": "text/html"})
        fields = {key: value[0] for key, value in parse_qs(body.decode()).items()}
        login.posted = fields
        right = {"username": "reader", "password": PASSWORD, "csrf": "t&k", "__ncforminfo": "abc"}
        if fields == right:
            handler.reply(302, b"", {"Location": data.url, "Set-Cookie": "EROS_SSO=yes; Path=/"})
        else:
            handler.reply(200, FORM, {"Content-Type": "text/html"})

    data.answers["/data/a.tif"] = file
    login.answers["/login"] = form
    return data, login


@pytest.fixture
def session(sites, write_config):
    data, login = sites
    form = {
        "url": f"{login.url}/login",
        "way": "form",
        "username": "USGS_ERS_USERNAME",
        "password": "USGS_ERS_PASSWORD",
    }
    services = write_config(usgs={"url": data.url, "hosts": [], "login": form})
    return open_session(load_services(services), Patience(attempts=2, backoff_s=0.01))


@pytest.fixture
def password(monkeypatch):
    monkeypatch.setenv("USGS_ERS_USERNAME", "reader")
    monkeypatch.setenv("USGS_ERS_PASSWORD", PASSWORD)


def posts(archive):
    return [path for method, path, _ in archive.seen if method == "POST"]


def test_the_form_is_filled_in_once_and_the_cookie_opens_the_rest(sites, session, password, tmp_path):
    data, login = sites
    with ThreadPoolExecutor(4) as pool:
        items = [Item(f"{data.url}/data/a.tif", f"{n}.tif") for n in range(4)]
        list(pool.map(lambda item: download(item, tmp_path, session), items))
    assert (tmp_path / "3.tif").read_bytes() == b"pixels" * 100
    assert len(posts(login)) == 1 and not posts(data)


def test_without_a_login_the_variables_are_named(sites, session):
    data, login = sites
    with pytest.raises(ArchiveError, match="login is missing; set USGS_ERS_USERNAME and USGS_ERS_PASSWORD"):
        fetch_bytes(f"{data.url}/data/a.tif", session)
    assert not posts(login)


def test_a_wrong_password_is_told_from_a_missing_one_and_not_shown(sites, session, password, monkeypatch):
    data, login = sites
    monkeypatch.setenv("USGS_ERS_PASSWORD", "wrong-secret")
    with pytest.raises(ArchiveError, match="not accepted") as caught:
        fetch_bytes(f"{data.url}/data/a.tif", session)
    assert "wrong-secret" not in str(caught.value) and len(posts(login)) == 1


@pytest.mark.parametrize("status", [307, 308])
def test_the_password_is_not_posted_on_to_where_the_form_redirects(sites, session, password, status):
    data, login = sites
    form = login.answers["/login"]

    def elsewhere(handler, body):
        if handler.command == "GET":
            return form(handler, body)
        handler.reply(status, b"", {"Location": f"{data.url}/collect"})

    login.answers["/login"] = elsewhere
    with pytest.raises(ArchiveError, match="not accepted"):
        fetch_bytes(f"{data.url}/data/a.tif", session)
    assert not posts(data)
