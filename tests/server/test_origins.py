"""Who calls from where: which pages' origins may call, and whose word on a client's address is believed."""

from __future__ import annotations

import socket

import pytest
import trio

from secureconnect.server.origins import LOCAL_ORIGINS, Origins, TrustedProxies, plain_host
from secureconnect.server.transport import open_listener


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("https://chat.example", "api.example", True),
        ("https://port.example", "api.example", True),
        ("https://odd.example:8443", "api.example", True),
        ("https://odd.example", "api.example", False),
        ("HTTPS://CHAT.EXAMPLE", "api.example", True),
        ("http://chat.example", "api.example", False),
        ("https://chat.example.", "api.example", False),
        ("https://chat.example/", "api.example", False),
        ("https://chat.example.evil", "api.example", False),
        ("https://evil.example", "api.example", False),
        ("https://sub.chat.example", "api.example", False),
        ("http://api.example", "api.example", True),
        ("https://api.example", "api.example", True),
        ("https://api.example", "api.example:443", True),
        ("http://api.example:80", "api.example", True),
        ("https://API.example", "Api.Example", True),
        ("http://api.example:8080", "api.example:8080", True),
        ("http://api.example:8080", "api.example", False),
        ("http://api.example", "api.example:8080", False),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("http://", "", False),
        ("https://", "", False),
        ("http://:80", ":80", False),
        ("null", "null", False),
        ("", "", False),
        ("file://api.example", "api.example", False),
        ("chrome-extension://api.example", "api.example", False),
        ("javascript:alert(1)", "api.example", False),
        ("http://api.example http://evil.example", "api.example", False),
        *((origin, "api.example", True) for origin in LOCAL_ORIGINS),
        ("http://localhost:3001", "api.example", False),
        ("https://localhost:3000", "api.example", False),
    ],
)
def test_which_origins_may_call(origin: str, host: str, allowed: bool) -> None:
    listed = ["https://Chat.Example/", "https://port.example:443", "https://odd.example:8443"]
    assert Origins(listed).allows(origin, host) is allowed


@pytest.mark.parametrize("origin", ["https://any.example", "null", ""])
def test_a_star_allows_every_origin_and_is_never_sent_back(origin: str) -> None:
    origins = Origins(["*"])
    assert origins.allows(origin, "api.example")
    assert origins.answer_headers(origin)["Access-Control-Allow-Origin"] == origin


def test_a_preflight_is_told_all_that_an_answer_is_and_what_may_be_sent() -> None:
    origins = Origins()
    preflight, answer = origins.preflight_headers("https://a.example"), origins.answer_headers("https://a.example")
    assert {name: answer[name] for name in answer if name in preflight}.items() <= preflight.items()
    assert {"authorization", "content-type"} <= set(preflight["Access-Control-Allow-Headers"].lower().split(", "))


PROXIES = ("10.0.0.0/8", "192.0.2.7", "fd00::/8", "fe80::1%eth0", "::ffff:172.16.0.0/108")


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        # nobody believes a stranger
        ("203.0.113.9:5", "198.51.100.7", "203.0.113.9:5"),
        ("[2001:db8::1]:5", "198.51.100.7", "[2001:db8::1]:5"),
        ("", "198.51.100.7", ""),
        ("nonsense", "198.51.100.7", "nonsense"),
        # a proxy is believed, up to the first address that is none of ours
        ("10.0.0.1:5", "198.51.100.7", "198.51.100.7:0"),
        ("10.0.0.1:5", " 6.6.6.6 ,\t198.51.100.7 , 10.0.0.2 ", "198.51.100.7:0"),
        ("10.0.0.1:5", "10.0.0.3, 10.0.0.2", "10.0.0.3:0"),
        ("10.0.0.1:5", "198.51.100.7,", "10.0.0.1:5"),
        ("10.0.0.1:5", "198.51.100.7, unknown", "10.0.0.1:5"),
        ("10.0.0.1:5", "198.51.100.7, _hidden, 10.0.0.2", "10.0.0.2:0"),
        ("10.0.0.1:5", "198.51.100.07", "10.0.0.1:5"),
        ("192.0.2.7:5", "198.51.100.7", "198.51.100.7:0"),
        ("192.0.2.8:5", "198.51.100.7", "192.0.2.8:5"),
        # IPv6, with ports and brackets as proxies write them
        ("[fd00::1]:5", "2001:db8::7", "[2001:db8::7]:0"),
        ("[fd00::1]:5", "[2001:db8::7]", "[2001:db8::7]:0"),
        ("[fd00::1]:5", "[2001:DB8:0::7]:99", "[2001:db8::7]:0"),
        ("10.0.0.1:5", "198.51.100.7:1234", "198.51.100.7:0"),
        # IPv4 that a socket for both families shows as IPv6
        ("[::ffff:10.0.0.1]:5", "198.51.100.7", "198.51.100.7:0"),
        ("[::ffff:a00:1]:5", "198.51.100.7", "198.51.100.7:0"),
        ("10.0.0.1:5", "::ffff:198.51.100.7", "198.51.100.7:0"),
        ("10.0.0.1:5", "[::ffff:198.51.100.7]:80, ::ffff:10.0.0.2", "198.51.100.7:0"),
        ("172.16.3.4:5", "198.51.100.7", "198.51.100.7:0"),
        ("[::ffff:172.16.3.4]:5", "198.51.100.7", "198.51.100.7:0"),
        ("172.32.3.4:5", "198.51.100.7", "172.32.3.4:5"),
        # zones: of a proxy they count where the setting names one, of a client they mean nothing here
        ("[fe80::1%eth0]:5", "198.51.100.7", "198.51.100.7:0"),
        ("[fe80::1%eth1]:5", "198.51.100.7", "[fe80::1%eth1]:5"),
        ("[fe80::1]:5", "198.51.100.7", "[fe80::1]:5"),
        ("[fd00::1%eth1]:5", "198.51.100.7", "198.51.100.7:0"),
        ("10.0.0.1:5", "fe80::5%anything", "[fe80::5]:0"),
        ("10.0.0.1:5", "fe80::1%eth0, fe80::9%x", "[fe80::9]:0"),
    ],
)
def test_whose_word_on_a_clients_address_is_believed(peer: str, forwarded: str, client: str) -> None:
    assert TrustedProxies(PROXIES).client(peer, forwarded.encode()) == client


def test_without_proxies_or_their_header_the_peer_is_the_client() -> None:
    assert TrustedProxies().client("10.0.0.1:5", b"198.51.100.7") == "10.0.0.1:5"
    assert TrustedProxies(PROXIES).client("10.0.0.1:5", None) == "10.0.0.1:5"


@pytest.mark.parametrize("network", ["", "10.0.0.0/33", "proxy.example", "fe80::1%", "10.0.0.1/x", "*"])
def test_what_is_no_network_is_refused_at_the_start(network: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        TrustedProxies([network])


@pytest.mark.parametrize(
    ("host", "plain"), [("::ffff:1.2.3.4", "1.2.3.4"), ("1.2.3.4", "1.2.3.4"), ("::ffff:1", "::ffff:1"), ("::1", "::1"), ("", "")]
)
def test_how_a_host_is_written(host: str, plain: str) -> None:
    assert plain_host(host) == plain


async def test_a_client_of_a_listener_for_both_families_is_known_by_its_own_address() -> None:
    try:
        listener = open_listener("::", 0) if not socket.has_dualstack_ipv6() else open_listener("", 0)
    except OSError:
        pytest.skip("no IPv6 on this machine")
    with trio.fail_after(5):
        with socket.create_connection(("127.0.0.1", listener.port)) as client:
            accepted = await listener.accept()
            assert accepted.peer == f"127.0.0.1:{client.getsockname()[1]}"
            accepted.abort()
        listener.close()
