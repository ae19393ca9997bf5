"""API keys: how they are made, what is kept of them, and whose key a request bears.

Only the SHA-256 of a key is kept. A key is 256 random bits, so there is nothing to guess that a
slow hash such as bcrypt would protect, and every request can afford this one.
"""

import logging
import re
import secrets
import socket
from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import NamedTuple

from serving.settings import ServingSettings, SettingsError

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
"""How old what is known of the keys file may be."""

_PREFIX = "recsys_"  # by which scanners for leaked secrets, and people, know it
_LINE = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,64}):(?P<digest>[0-9a-f]{64})")


class ApiKey(NamedTuple):
    """The name of who has a key, and the key's SHA-256.

    A name may have several keys, as while one takes the place of another.
    """

    name: str
    digest: bytes

    def __str__(self) -> str:
        """The line that :func:`parse_keys` reads."""
        return f"{self.name}:{self.digest.hex()}"


def new_key(name: str) -> tuple[str, ApiKey]:
    """A new key, to be given away, and what to keep of it.

    Raises ValueError for a name that is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    key = _PREFIX + secrets.token_urlsafe(32)
    (kept,) = parse_keys([str(ApiKey(name, _digest(key.encode())))])
    return key, kept


def parse_keys(lines: Iterable[str]) -> list[ApiKey]:
    """The keys in lines ``name:sha256``; empty ones and those that begin with # are left out.

    Raises ValueError, which tells the number of the line but nothing that stands in it.
    """
    keys = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"entry {number} is not name:sha256, 64 lowercase hexadecimal digits; "
                "recsys api-key NAME makes one"
            )
        keys.append(ApiKey(match["name"], bytes.fromhex(match["digest"])))
    return keys


class KeyRing:
    """All keys of the settings; those in the file are those that stand there now.

    When the file can no longer be read, or is not one of keys, its last keys stay in force.
    """

    def __init__(self, listed: Iterable[ApiKey], file: Path | None) -> None:
        """Raises :class:`SettingsError` for a file that is not there or is not one of keys."""
        self._listed = tuple(listed)
        self._file = file
        self._keys = self._listed
        self._seen: tuple[int, ...] | None = None
        self._next_look = monotonic() + SECONDS_BETWEEN_LOOKS
        if file is not None:
            try:
                self._seen = _state(file)
                self._keys = self._listed + _read(file)
            except (OSError, ValueError) as error:
                raise SettingsError(f"RECSYS_API_KEYS_FILE: {_told(file, error)}") from error

    def name_of(self, key: bytes) -> str | None:
        """Whose key it is, in a time that does not depend on how much of it is right."""
        if self._file is not None and monotonic() >= self._next_look:
            self._look(self._file)
        digest, name = _digest(key), None
        for known in self._keys:
            if compare_digest(known.digest, digest):
                name = known.name
        return name

    def _look(self, file: Path) -> None:
        """Take over what the file holds if it has changed."""
        self._next_look = monotonic() + SECONDS_BETWEEN_LOOKS
        seen, error = None, None
        try:
            seen = _state(file)
            if seen != self._seen:
                self._keys = self._listed + _read(file)
                logger.warning("%s has changed: %d API keys are in force", file, len(self._keys))
        except (OSError, ValueError) as reason:
            error = reason
        if error is not None and seen != self._seen:
            logger.error("%s; the last API keys stay in force", _told(file, error))
        self._seen = seen


def key_ring(settings: ServingSettings) -> KeyRing | None:
    """The keys that the settings name; None where they name none.

    Raises :class:`SettingsError` for what are no keys.
    """
    if not settings.has_keys:
        return None
    try:
        listed = parse_keys(settings.api_keys.split(","))
    except ValueError as error:
        raise SettingsError(f"RECSYS_API_KEYS: {error}") from error
    return KeyRing(listed, Path(settings.api_keys_file) if settings.api_keys_file else None)


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()


def _state(file: Path) -> tuple[int, ...]:
    """What differs when the file was written, replaced, or made readable."""
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _read(file: Path) -> tuple[ApiKey, ...]:
    keys = tuple(parse_keys(file.read_text().splitlines()))
    if not keys:
        raise ValueError("there is no key in it")
    return keys


def _told(file: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) else error
    return f"the API keys in {file} cannot be read: {reason}"


def require_keys_or_loopback(settings: ServingSettings) -> None:
    """Raise :class:`SettingsError` where anybody on a network could ask without a key."""
    if key_ring(settings) or settings.insecure or is_loopback(settings.host):
        return
    raise SettingsError(
        f"without API keys nobody but this machine may ask, and {settings.host} lets others in. "
        "Make a key with recsys api-key NAME and put its line into RECSYS_API_KEYS_FILE, or listen "
        "on 127.0.0.1 behind a proxy, or say --insecure (RECSYS_API_INSECURE=true)"
    )


def is_loopback(host: str) -> bool:
    """Whether all that a host's name stands for is this machine alone."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return all(ip_address(address[0]).is_loopback for *_, address in found)
