"""What RECSYS_REDIS_URL says: one server, the nodes of a cluster, or the sentinels of a service."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_URL = re.compile(
    r"(?P<scheme>rediss?)(?:\+(?P<kind>cluster|sentinel))?://"
    r"(?P<login>[^/?#]*@)?(?P<servers>[^/?#@]*)(?P<path>/[^?#]*)?(?P<query>\?[^#]*)?"
)
_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:,]+)(?::(?P<port>[0-9]{1,5}))?")
_PORTS = {None: 6379, "cluster": 6379, "sentinel": 26379}
_DATABASE = re.compile(r"[0-9]{0,9}")
_OF_SENTINELS = "sentinel_"

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
    sentinel_options: Mapping[str, str] = MappingProxyType({})
    """Redis-py's options for the sentinels' own login, given as ``sentinel_username`` and so on."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """The parts of ``url``; ValueError with examples when it is none."""
        if url.startswith("unix://"):
            return cls("server", url)
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError(f"not the URL of a Redis; such are {EXAMPLES}")
        kind: Any = match["kind"]
        servers = match["servers"].split(",")
        addresses = tuple(filter(None, (_address(server, _PORTS[kind]) for server in servers)))
        if kind is None:
            if len(servers) > 1 or (servers[0] and not addresses):
                raise ValueError(f"not the URL of a Redis; such are {EXAMPLES}")
            return cls("server", url)
        service, _, db = (match["path"] or "/")[1:].partition("/")
        sensible = _DATABASE.fullmatch(db) and (kind == "sentinel") == bool(service)
        if len(addresses) < len(servers) or not sensible:
            raise ValueError(f"not the URL of a Redis {kind}; such are {EXAMPLES}")
        options = dict(parse_qsl((match["query"] or "?")[1:]))
        own = {n.removeprefix(_OF_SENTINELS): v for n, v in options.items() if _is_sentinels(n)}
        rest = urlencode({name: v for name, v in options.items() if not _is_sentinels(name)})
        query = f"?{rest}" if rest else ""
        like = f"{match['scheme']}://{match['login'] or ''}/{db}{query}"
        return cls(kind, server_url(like, *addresses[0]), addresses, service, own)

    def at(self, host: str, port: int) -> str:
        """The plain URL of one server, with the login and the options of all of them."""
        return server_url(self.plain, host, port)

    @property
    def servers(self) -> tuple[str, ...]:
        """The plain URLs of the server or of the nodes that are named; not of sentinels."""
        return tuple(self.at(*a) for a in self.addresses) if self.addresses else (self.plain,)


def server_url(like: str, host: str, port: int) -> str:
    """A plain URL with another host and port, and all else as in ``like``."""
    parts = urlsplit(like)
    if parts.scheme == "unix":  # a socket of a cluster's node, whose others are elsewhere
        parts = parts._replace(scheme="redis", path="")
    login, at, _ = parts.netloc.rpartition("@")
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return urlunsplit(parts._replace(netloc=f"{login}{at}{server}"))


def _address(text: str, port: int) -> tuple[str, int] | None:
    """Host and port, the given one where there is none; None when the text is no address."""
    server = _SERVER.fullmatch(text)
    if server is None or not 0 < (port := int(server["port"] or port)) < 65_536:
        return None
    return server["host"].strip("[]"), port


def _is_sentinels(option: str) -> bool:
    return option.startswith(_OF_SENTINELS)
