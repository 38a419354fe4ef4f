"""Which hosts are asked, and who gets to see a secret."""

from __future__ import annotations

import base64
import logging
from urllib.parse import quote

import pytest
from tidemark.datasets.acquire.answers import fetch_json, request
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.acquire.transport import Item, download
from tidemark.errors import ArchiveError, ConfigError, InputError, TidemarkError

TOKEN, PASSWORD = "t0ken.of.nobody", "passw0rd-of-nobody"
BASIC = "Basic " + base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
QUICK = Patience(attempts=2, backoff_s=0.01)


@pytest.fixture
def data_host(new_archive):
    return new_archive()


@pytest.fixture
def login_host(new_archive):
    return new_archive()


@pytest.fixture
def store(new_archive):
    """Where signed URLs lead: on the list, without a login."""
    return new_archive()


@pytest.fixture
def session(data_host, login_host, store, write_config):
    login = {
        "url": login_host.url, "username": "EARTHDATA_USERNAME", "password": "EARTHDATA_PASSWORD",
        "token": "EARTHDATA_TOKEN", "hosts": [data_host.host],
    }  # fmt: skip
    asf = {"url": data_host.url, "hosts": [store.host], "login": login}
    return open_session(load_services(write_config(asf=asf)), QUICK)


def earthdata(data_host, login_host, store):
    """The dance of Earthdata Login (urs.earthdata.nasa.gov/documentation/for_users/data_access/python), then a signed
    URL as the Thin Egress App of ASF gives (github.com/asfadmin/thin-egress-app)."""
    back = f"{data_host.url}/login"
    ask = f"{login_host.url}/oauth/authorize?response_type=code&client_id=c&redirect_uri={quote(back, '')}&state=/f.zip"
    signed = store.put("/f.zip", b"content") + "?A-userid=reader&Signature=s1gned"

    def file(handler, body):
        entered = "asf-urs=yes" in handler.headers.get("Cookie", "")
        bearer = handler.headers.get("Authorization") == f"Bearer {TOKEN}"
        handler.reply(303, b"", {"Location": signed if entered or bearer else ask})

    def authorize(handler, body):
        if handler.headers.get("Authorization") == BASIC:
            handler.reply(302, b"", {"Location": back + "?code=123&state=/f.zip"})
        else:
            handler.reply(401, b"HTTP Basic: Access denied.", {"WWW-Authenticate": 'Basic realm="urs"'})

    data_host.answers["/f.zip"] = file
    data_host.answers["/login"] = lambda h, body: h.reply(302, b"", {"Location": "/f.zip", "Set-Cookie": "asf-urs=yes"})
    login_host.answers["/oauth/authorize"] = authorize
    return f"{data_host.url}/f.zip"


def authorizations(archive):
    return {headers.get("Authorization") for _, _, headers in archive.seen}


def test_a_password_is_seen_by_the_login_host_alone(session, data_host, login_host, store, tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHDATA_USERNAME", "reader")
    monkeypatch.setenv("EARTHDATA_PASSWORD", PASSWORD)
    download(Item(earthdata(data_host, login_host, store), "f.zip"), tmp_path, session)
    assert (tmp_path / "f.zip").read_bytes() == b"content"
    assert authorizations(login_host) == {BASIC}
    assert authorizations(data_host) == authorizations(store) == {None}


def test_a_password_comes_from_netrc_too_and_only_its_own_machine_gets_it(
    session, data_host, login_host, store, tmp_path, monkeypatch
):
    netrc = tmp_path / "netrc"
    netrc.write_text(
        f"machine {login_host.host} login reader password {PASSWORD}\n"
        f"machine {store.host} login reader password {PASSWORD}\n"
        f"machine 127.0.0.1 login reader password {PASSWORD}\n"  # requests itself would send this one everywhere here
    )
    monkeypatch.setenv("NETRC", str(netrc))
    download(Item(earthdata(data_host, login_host, store), "f.zip"), tmp_path, session)
    assert authorizations(login_host) == {BASIC}
    assert authorizations(data_host) == authorizations(store) == {None}


def test_a_token_is_seen_by_its_hosts_alone(session, data_host, login_host, store, tmp_path, monkeypatch):
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    download(Item(earthdata(data_host, login_host, store), "f.zip"), tmp_path, session)
    assert authorizations(data_host) == {f"Bearer {TOKEN}"}
    assert authorizations(store) == {None} and not login_host.seen


def test_without_a_login_the_error_says_what_to_set(session, data_host, login_host, store, tmp_path):
    with pytest.raises(ArchiveError) as caught:
        download(Item(earthdata(data_host, login_host, store), "f.zip"), tmp_path, session)
    assert "401" in str(caught.value) and "EARTHDATA_TOKEN or EARTHDATA_USERNAME and EARTHDATA_PASSWORD" in str(
        caught.value
    )


def test_nothing_secret_is_logged_or_shown(session, data_host, login_host, store, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("EARTHDATA_USERNAME", "reader")
    monkeypatch.setenv("EARTHDATA_PASSWORD", PASSWORD)
    url = earthdata(data_host, login_host, store)
    store.drops("/f.zip", 1, 1)
    with caplog.at_level(logging.INFO), pytest.raises(TidemarkError) as caught:
        download(Item(url + "?X-Amz-Signature=s1gned", "f.zip"), tmp_path, session)
    kept = "".join(path.read_text() for path in tmp_path.glob("*.json"))
    for text in (caplog.text, str(caught.value), repr(caught.value), kept):
        assert not any(secret in text for secret in (PASSWORD, BASIC, "s1gned", TOKEN))


def test_a_redirect_to_a_host_outside_the_list_is_refused_by_name(
    session, data_host, new_archive, tmp_path, monkeypatch
):
    monkeypatch.setenv("EARTHDATA_TOKEN", TOKEN)
    stranger = new_archive()
    data_host.leads("/f.zip", stranger.put("/f.zip", b"content"))
    with pytest.raises(InputError, match=f"the host {stranger.host} is not on the list") as caught:
        download(Item(f"{data_host.url}/f.zip", "f.zip"), tmp_path, session)
    assert not stranger.seen and caught.value.exit_code == 2


@pytest.mark.parametrize(
    "target",
    ["http://example.org/f", "https://example.org/f", "file:///etc/passwd", "ftp://example.org/f", "https://u:p@h/"],
)
def test_a_redirect_never_leaves_https_and_the_list(session, data_host, tmp_path, target):
    data_host.leads("/f.zip", target)
    with pytest.raises(TidemarkError):
        download(Item(f"{data_host.url}/f.zip", "f.zip"), tmp_path, session)
    assert not (tmp_path / "f.zip").exists()


def test_redirects_in_circles_end(session, data_host):
    data_host.leads("/a", data_host.url + "/a")
    with pytest.raises(ArchiveError, match="more than 10 redirects"):
        request(session, "GET", data_host.url + "/a")


def test_a_host_that_does_not_answer_is_named(session, data_host, write_config):
    services = load_services(write_config(hand={"url": "http://127.0.0.1:9", "hosts": []}))
    with pytest.raises(ArchiveError, match="http://127.0.0.1:9/x: the connection failed"):
        request(open_session(services, QUICK), "GET", "http://127.0.0.1:9/x?sig=1")


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ünïcode"])
def test_a_token_that_is_none_is_refused_without_showing_it(session, data_host, monkeypatch, token):
    monkeypatch.setenv("EARTHDATA_TOKEN", token)
    with pytest.raises(ConfigError, match="EARTHDATA_TOKEN: holds no token") as caught:
        request(session, "GET", data_host.url + "/f.zip")
    assert token not in str(caught.value) and not data_host.seen


def test_a_damaged_netrc_is_named_with_its_line_and_nothing_of_it(session, login_host, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {login_host.host} login reader password {PASSWORD}\nnonsense {PASSWORD}\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with pytest.raises(ConfigError, match="netrc: cannot be read") as caught:
        request(session, "GET", login_host.url + "/oauth/authorize")
    assert PASSWORD not in str(caught.value)


def test_answers_that_are_no_json_or_too_long_are_refused(session, data_host):
    data_host.put("/j", b"{")
    with pytest.raises(ArchiveError, match="no JSON"):
        fetch_json(data_host.url + "/j", session)
    data_host.put("/j", b"[" + b" " * 100)
    with pytest.raises(ArchiveError, match="over 50 bytes"):
        fetch_json(data_host.url + "/j", session, max_bytes=50)
    data_host.put("/j", b'{"a": 1}')
    assert fetch_json(data_host.url + "/j", session) == {"a": 1}
