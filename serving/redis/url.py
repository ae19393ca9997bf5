"""What RECSYS_REDIS_URL says: one server, the nodes of a cluster, or the sentinels of a service."""

import re
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

_URL = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<kind>cluster|sentinel))?://"
    r"(?P<login>[^/?#]*@)?(?P<servers>[^/?#@]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?"
)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,]+)(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {"cluster": 6379, "sentinel": 26379}

EXAMPLES = (
    "redis://host:6379/0, rediss://user:password@host (TLS), unix:///path/to.sock, "
    "redis+cluster://host:7000,host:7001, redis+sentinel://host:26379,host:26379/service/0"
)


class RedisUrl(NamedTuple):
    """The parts of a URL, of which :meth:`at` makes the plain one of any server."""

    kind: Literal["server", "cluster", "sentinel"]
    plain: str
    """The URL of the single server, or such a one of the first that is named."""
    addresses: tuple[tuple[str, int], ...] = ()
    """Host and port of each node of a cluster that is named, or of each sentinel."""
    service: str = ""
    """The name that sentinels know the primary by."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """The parts of ``url``; ValueError with examples when it is none."""
        if url.startswith("unix://"):
            return cls("server", url)
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError(f"not the URL of a Redis; such are {EXAMPLES}")
        kind: Any = match["kind"]
        if kind is None:
            return cls("server", url)
        servers = [_SERVER.fullmatch(server) for server in match["servers"].split(",")]
        service, _, db = (match["path"] or "/")[1:].partition("/")
        if None in servers or (kind == "sentinel") != bool(service):
            raise ValueError(f"not the URL of a Redis {kind}; such are {EXAMPLES}")
        addresses = tuple(
            (server["host"].strip("[]"), int(server["port"] or _PORTS[kind]))
            for server in servers
            if server
        )
        like = f"{match['scheme']}://{match['login'] or ''}/{db}{match['query'] or ''}"
        return cls(kind, server_url(like, *addresses[0]), addresses, service)

    def at(self, host: str, port: int) -> str:
        """The plain URL of one server, with the login and the options of all of them."""
        return server_url(self.plain, host, port)

    @property
    def servers(self) -> tuple[str, ...]:
        """The plain URLs of the server or of the nodes that are named; not of sentinels."""
        return tuple(self.at(*a) for a in self.addresses) if self.addresses else (self.plain,)

    @property
    def sentinel_options(self) -> dict[str, str]:
        """Redis-py's options for the sentinels' own login, ``sentinel_username`` and so on."""
        given = parse_qsl(urlsplit(self.plain).query)
        mark = "sentinel_"
        return {name.removeprefix(mark): value for name, value in given if name.startswith(mark)}


def server_url(like: str, host: str, port: int) -> str:
    """A plain URL with another host and port, and all else as in ``like``."""
    parts = urlsplit(like)
    if parts.scheme == "unix":  # a socket of a cluster's node, whose others are elsewhere
        parts = parts._replace(scheme="redis", path="")
    login, at, _ = parts.netloc.rpartition("@")
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return urlunsplit(parts._replace(netloc=f"{login}{at}{server}"))
