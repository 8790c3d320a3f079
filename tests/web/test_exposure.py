"""Who is answered by the web program, and what a request must have to store something."""

import socket
import time

import pytest
from visitor import Browser, desk_of

from sentinel.config import Web
from sentinel.errors import ConfigError
from sentinel.store.queue import open_store
from sentinel.web import server, session
from sentinel.web.exposure import Access, RateLimit

PROXY = {"proxies": ("10.0.0.1",), "user_header": "X-Forwarded-User"}


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/sentinel.db")
    yield opened
    opened.engine.dispose()


def scope(method="GET", peer="127.0.0.1", path="/", **headers):
    headers = {"host": "127.0.0.1:9421"} | {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]
    return {"type": "http", "method": method, "path": path, "client": (peer, 1), "headers": raw}


def status(web, **request):
    refused = Access(web=Web(**web)).refusal(scope(**request))
    return refused[0] if refused else 200


@pytest.mark.parametrize(
    ("host", "web", "expected"),
    [
        ("127.0.0.1:9421", {}, 200),
        ("localhost", {}, 200),
        ("LOCALHOST:80", {}, 200),
        ("[::1]:9421", {}, 200),
        ("127.0.0.1.evil.example", {}, 421),
        ("evil.example", {}, 421),
        ("evil.example:9421", {}, 421),
        ("localhost@evil.example", {}, 421),
        ("evil.example/localhost", {}, 421),
        ("192.168.0.7", {}, 421),
        ("", {}, 421),
        (None, {}, 421),
        ("desk.example", {"url": "https://desk.example/"}, 200),
        ("desk.example", {"hosts": ("desk.example",)}, 200),
        ("other.example", {"hosts": ("desk.example",)}, 421),
        ("10.1.1.1:9421", {"host": "0.0.0.0", "certificate": "c", "key": "k"}, 200),
        ("evil.example", {"host": "0.0.0.0", "certificate": "c", "key": "k"}, 421),
    ],
)
def test_only_a_host_header_that_names_this_server_is_answered(host, web, expected):
    assert status(web, host=host) == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"origin": "http://127.0.0.1:9421"}, 200),
        ({"origin": "https://127.0.0.1:9421"}, 403),
        ({"origin": "http://127.0.0.1:9422"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({}, 403),
        ({"origin": "null", "sec_fetch_site": "same-origin"}, 200),
        ({"origin": "null", "sec_fetch_site": "cross-site"}, 403),
        ({"origin": "null", "sec_fetch_site": "same-site"}, 403),
        ({"origin": "http://evil.example", "sec_fetch_site": "same-origin"}, 403),
        ({"origin": "https://desk.example"}, 200),
        ({"origin": "http://127.0.0.1:9421", "content_length": "70000"}, 413),
        ({"origin": "http://127.0.0.1:9421", "content_length": "-1"}, 413),
    ],
)
def test_only_a_page_of_this_server_may_send_a_form(headers, expected):
    assert status({"url": "https://desk.example"}, method="POST", path="/label", **headers) == expected


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X\x1b"])
def test_other_methods_are_refused(method):
    assert status({}, method=method) == 405


def test_a_desk_that_is_read_only_stores_nothing_and_lets_people_log_out():
    ours = {"method": "POST", "origin": "http://127.0.0.1:9421"}
    assert status({"read_only": True}, path="/labels", **ours) == 403
    assert status({"read_only": True}, path="/logout", **ours) == 200


def test_beyond_loopback_without_tls_only_a_named_proxy_is_answered():
    beyond = {"host": "0.0.0.0", **PROXY}
    assert status(beyond, peer="10.0.0.1", host="10.0.0.9") == 200
    assert status(beyond, peer="::ffff:10.0.0.1", host="10.0.0.9") == 200
    assert status(beyond, peer="10.0.0.2", host="10.0.0.9") == 403


def test_a_user_header_is_believed_from_a_named_proxy_only():
    access = Access(web=Web(**PROXY))
    assert access.named_by_proxy(scope(peer="10.0.0.1", x_forwarded_user=" anna ")) == "anna"
    assert access.named_by_proxy(scope(peer="10.0.0.2", x_forwarded_user="anna")) == ""
    assert Access(web=Web(proxies=("10.0.0.1",))).named_by_proxy(scope(peer="10.0.0.1", x_forwarded_user="anna")) == ""
    twice = scope(peer="10.0.0.1")
    twice["headers"] += [(b"x-forwarded-user", b"anna"), (b"x-forwarded-user", b"eve")]
    assert access.named_by_proxy(twice) == ""


def test_reading_is_free_on_loopback_and_needs_a_login_beyond_it_or_through_a_proxy():
    assert not Access(web=Web()).must_log_in(scope())
    assert Access(web=Web()).must_log_in(scope(x_forwarded_for="1.2.3.4"))
    assert Access(web=Web(**PROXY)).must_log_in(scope(peer="10.0.0.1"))
    assert Access(web=Web(host="0.0.0.0", certificate="c", key="k")).must_log_in(scope())


def test_a_rate_limit_counts_each_key_alone():
    limit = RateLimit(most=2, seconds=60)
    assert [limit.exceeded(key) for key in ("a", "a", "a", "b")] == [False, False, True, False]


def test_every_response_has_the_headers_that_keep_other_sites_out(store, tmp_path):
    with desk_of(store, tmp_path) as port:
        for path in ("/", "/healthz", "/nothing", "/login"):
            _, headers, _ = Browser(port).get(path)
            assert "script-src 'self'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
        assert Browser(port).get("/", Host="evil.example")[0] == 421


def test_a_link_logs_in_once_and_a_session_ends(store, tmp_path):
    code = session.new_link(store, "anna")
    with desk_of(store, tmp_path) as port:
        anna, late = Browser(port), Browser(port)
        assert "anna" not in anna.get(f"/login?code={code}")[2]  # a preview of the link uses it not up
        assert (anna.log_in(code), late.log_in(code), late.log_in("x")) == (303, 403, 403)
        assert "anna" in anna.get("/")[2]
        assert "anna" not in Browser(port).get("/")[2]
        assert Browser(port).post("/logout")[0] == 401
        assert anna.post("/logout", {"token": "0" * 64})[0] == 403
        assert anna.post("/logout", Origin="http://evil.example")[0] == 403
        assert anna.post("/logout")[0] == 303
        assert "anna" not in anna.get("/")[2]


def test_a_link_and_a_session_end_with_their_time(store, monkeypatch):
    monkeypatch.setattr(session, "LINK_S", -1.0)
    assert session.redeem(store, session.new_link(store, "anna")) is None
    monkeypatch.setattr(session, "LINK_S", 60.0)
    monkeypatch.setattr(session, "SESSION_S", -1.0)
    assert session.session_name(store, session.redeem(store, session.new_link(store, "anna"))) is None


def test_the_store_holds_no_code_and_no_cookie(store, tmp_path):
    code = session.new_link(store, "anna")
    cookie = session.redeem(store, code)
    raw = b"".join(path.read_bytes() for path in tmp_path.glob("sentinel.db*"))
    assert code.encode() not in raw
    assert cookie.encode() not in raw


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "\x1b[1m"])
def test_a_name_that_cannot_be_shown_is_refused(store, name):
    with pytest.raises(ConfigError, match="expected a name"):
        session.new_link(store, name)


def test_the_link_leads_to_the_running_web_program(store):
    from sentinel.config import Config
    from sentinel.errors import StoreError

    with pytest.raises(StoreError, match="no web program runs"):
        session.address(Config(), store)
    host = socket.gethostname()
    store.record_heartbeat(f"web@{host}", 10, pid=1, host=host, web="http://127.0.0.1:4711")
    assert session.address(Config(), store) == "http://127.0.0.1:4711"
    assert session.address(Config(web={"url": "https://desk.example/"}), store) == "https://desk.example"


def test_a_client_that_sends_no_request_is_disconnected_and_blocks_nobody(store, tmp_path, monkeypatch):
    monkeypatch.setattr(server, "SLOW_CLIENT_S", 0.3)
    with desk_of(store, tmp_path) as port, socket.create_connection(("127.0.0.1", port), timeout=20) as silent:
        silent.sendall(b"GET / HTTP/1.1\r\nHost: ")
        began = time.monotonic()
        assert Browser(port).get("/healthz")[0] == 200
        assert silent.recv(100) == b""
        assert time.monotonic() - began < 20
