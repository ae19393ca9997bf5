"""The ACL users of README.md, as they stand there."""

import re
from pathlib import Path
from urllib.parse import quote

import redis

README = Path(__file__).parents[1] / "README.md"
_BLOCK = re.compile(r"<!-- acl: (?P<name>[a-z ]+) -->\n```\n(?P<lines>(?:ACL SETUSER .+\n)+)```")


def documented(name: str) -> list[list[str]]:
    """The commands under a name, each as its words."""
    blocks = {block["name"]: block["lines"] for block in _BLOCK.finditer(README.read_text())}
    return [line.split() for line in blocks[name].splitlines()]


def set_users(client: redis.Redis, *names: str) -> None:
    """Carry out the commands under some names."""
    for name in names:
        for command in documented(name):
            client.execute_command(*command)


def login_of(name: str) -> tuple[str, str]:
    """The user that the commands under a name make, and their password."""
    words = documented(name)[0]
    return words[2], next(word[1:] for word in words if word.startswith(">"))


def url_for(name: str, url: str) -> str:
    """The URL of a server by which that user logs in."""
    user, password = login_of(name)
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{quote(user)}:{quote(password)}@{rest}"


def denials(client: redis.Redis) -> list[str]:
    """What users were denied since it was last asked."""
    found = [f"{entry['reason']} {entry['object']}" for entry in client.acl_log()]
    client.acl_log_reset()
    return found
