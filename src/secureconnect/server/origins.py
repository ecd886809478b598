"""Who calls from where: web origins that may (CORS), and which proxy's word on the client's address is believed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

LOCAL_ORIGINS = ("http://localhost:3000", "http://localhost:8080", "http://127.0.0.1:3000", "http://127.0.0.1:8080")
"""Where clients are developed (contract.md §2.15)."""
METHODS = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
REQUEST_HEADERS = (
    "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-ID, X-Session-ID, traceparent, tracestate"
)
EXPOSED_HEADERS = (
    "Retry-After, X-Degraded, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-ID, traceparent"
)
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
MAPPED_BITS = 96
"""The bits in front of the IPv4 address in `::ffff:1.2.3.4`."""
SUBSCRIBER_BITS = 64
"""Of an IPv6 address: whoever has one has at least all that begin like this (RFC 6177)."""
MAX_AGE_S = 86_400
"""How long a browser may remember a preflight (contract.md §2.15)."""


class Origins:
    """The web origins that may call. A request without `Origin` comes from no other site's page and is not judged here."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        """`allowed` beside the own origin and the local ones; `*` for any."""
        self._allowed = dict.fromkeys(_as_sent(origin) for origin in (*LOCAL_ORIGINS, *allowed))

    def allows(self, origin: str, host: str) -> bool:
        """`host` is the request's `Host`: a page may always call the server it came from, whatever proxy does the TLS."""
        if "*" in self._allowed:
            return True
        wanted = origin.lower()
        return wanted in self._allowed or _is_own(wanted, host.lower())

    def answer_headers(self, origin: str) -> Mapping[str, str]:
        """What an answer to an allowed origin carries."""
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        }

    def preflight_headers(self, origin: str) -> Mapping[str, str]:
        """What the answer to a preflight carries."""
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": METHODS,
            "Access-Control-Allow-Headers": REQUEST_HEADERS,
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }


class TrustedProxies:
    """Whose `X-Forwarded-For` is believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Addresses or CIDR ranges; a link-local one may have its zone (`fe80::1%eth0`). Raises: ValueError for anything else."""
        self._networks = [_network(network) for network in networks]

    def client(self, peer: str, forwarded: bytes | None) -> str:
        """The client's `host:port`: `peer`, or what trusted proxies say: the last address that is none of theirs (port 0)."""
        if forwarded is None or not self._networks or not self._trusts(_host(peer)):
            return peer
        client = peer
        for word in reversed(forwarded.decode("latin-1").split(",")):
            host = _host(word.strip())
            shown = _shown(host)
            if shown is None:
                break  # what stands further left was written by who could write nonsense
            client = shown
            if not self._trusts(host):
                break
        return client

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        if address is None:
            return False
        zone = getattr(address, "scope_id", None)
        return any(address in network and wanted in (None, zone) for network, wanted in self._networks)


def plain_host(host: str) -> str:
    """An IPv4 address that a socket for both families shows as `::ffff:1.2.3.4`, as everybody writes it; any other unchanged."""
    return host.removeprefix("::ffff:") if "." in host else host


def subscriber(peer: str) -> str:
    """Whom the address in `host:port` stands for, where strangers are counted: an IPv6 network, an IPv4 address."""
    host = plain_host(_host(peer))
    if ":" not in host:
        return host
    address = _address(host.partition("%")[0])
    return host if address is None else str(ip_network(f"{address}/{SUBSCRIBER_BITS}", strict=False))


def _as_sent(origin: str) -> str:
    """As browsers write it: no slash at the end, no port that goes without saying (RFC 6454 §6.2)."""
    plain = origin.rstrip("/").lower()
    return plain.removesuffix(_DEFAULT_PORTS.get(plain.partition("://")[0], ""))


def _is_own(origin: str, host: str) -> bool:
    scheme, _, authority = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and authority.removesuffix(port) == host.removesuffix(port) != ""


def _host(peer: str) -> str:
    """The address in `1.2.3.4`, `1.2.3.4:5`, `::1`, `[::1]` or `[::1]:5`."""
    if peer.startswith("["):
        return peer[1:].partition("]")[0]
    return peer.rpartition(":")[0] if peer.count(":") == 1 else peer


def _shown(host: str) -> str | None:
    """Without a zone, which means something on the proxy's machine only, and which a client could vary at will."""
    address = _address(host.partition("%")[0])
    if address is None:
        return None
    return f"[{address}]:0" if address.version == 6 else f"{address}:0"


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """None for what is no address; IPv4 in IPv6 clothes (RFC 4291 §2.5.5.2) is IPv4."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(text: str) -> tuple[IPv4Network | IPv6Network, str | None]:
    """The network and the zone that its addresses must have (None: any)."""
    plain, percent, rest = text.partition("%")
    zone, slash, length = rest.partition("/")
    if percent and not zone:
        raise ValueError(f"{text!r} names no zone behind its percent sign")
    network = ip_network(plain + slash + length, strict=False)
    if isinstance(network, IPv6Network) and network.prefixlen >= MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            network = IPv4Network((mapped, network.prefixlen - MAPPED_BITS))
    return network, zone or None
