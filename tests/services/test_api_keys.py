"""The API's keys as they change while it runs, and how they are made."""

from pathlib import Path
from time import sleep
from unittest.mock import Mock

import pytest

from serving import api_keys
from serving.api_keys import KeyRing, new_key
from tests.commands import Home, eventually
from tests.serving_processes import running

TOP_BUYS = "/api/recommendations/top-buys"


def replace_file(file: Path, content: str) -> None:
    """Put another file in its place, as the document says."""
    new = file.with_suffix(".new")
    new.write_text(content)
    new.rename(file)


def test_keys_change_while_it_runs(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (old, old_kept), (new, new_kept) = new_key("shop"), new_key("shop")
    file = tmp_path / "keys"
    file.write_text(f"# the shop's\n{old_kept}\n")
    monkeypatch.setenv("RECSYS_API_KEYS_FILE", str(file))
    with running(redis_url, tmp_path) as (client, _):

        def statuses() -> list[int]:
            """Of every worker's answers to the old key, the new one, and none."""
            headers = [{"X-API-Key": old}, {"X-API-Key": new}, {}]
            fresh = {"Connection": "close"}
            return [client.get(TOP_BUYS, headers=h | fresh).status_code for h in headers]

        def are(*wanted: int) -> bool:
            return all(statuses() == list(wanted) for _ in range(6))

        assert are(200, 401, 401)
        replace_file(file, f"{old_kept}\n{new_kept}\n")
        eventually(lambda: are(200, 200, 401), "both keys", seconds=30)
        replace_file(file, f"{new_kept}\n")
        eventually(lambda: are(401, 200, 401), "the new key", seconds=30)


def test_a_bad_file_changes_nothing_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(api_keys, "SECONDS_BETWEEN_LOOKS", 0.0)
    (one, kept), (other, other_kept), (listed, listed_kept) = map(new_key, ("a", "b", "listed"))
    file = tmp_path / "keys"
    file.write_text(str(kept))
    ring = KeyRing([listed_kept], file)
    for bad in ("no key\n", "", f"{other_kept}\n{other_kept.name}", None, b"\xff"):
        caplog.clear()
        file.unlink(missing_ok=True)
        if bad is not None:
            file.write_bytes(bad if isinstance(bad, bytes) else bad.encode())
        for _ in range(3):
            assert ring.name_of(one.encode()) == "a"
            assert ring.name_of(other.encode()) is None
            assert ring.name_of(listed.encode()) == "listed"
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert other_kept.digest.hex() not in caplog.text
    replace_file(file, str(other_kept))
    assert ring.name_of(one.encode()) is None
    assert ring.name_of(other.encode()) == "b"
    assert ring.name_of(listed.encode()) == "listed"


def test_a_file_that_becomes_readable_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(api_keys, "SECONDS_BETWEEN_LOOKS", 0.0)
    (_, kept), (other, other_kept) = new_key("a"), new_key("b")
    file = tmp_path / "keys"
    file.write_text(str(kept))
    ring = KeyRing([], file)
    new = tmp_path / "new"
    new.write_text(str(other_kept))
    with monkeypatch.context() as patch:  # root, who runs tests, may read whatever the mode is
        patch.setattr(api_keys, "_read", Mock(side_effect=PermissionError(13, "Permission denied")))
        new.replace(file)
        assert ring.name_of(other.encode()) is None
    sleep(0.02)  # older kernels tell times by their clock's ticks
    file.chmod(0o644)
    assert ring.name_of(other.encode()) == "b"


def test_the_command_makes_a_key_that_its_line_lets_in(tmp_path: Path):
    printed = Home(tmp_path).recsys("api-key", "shop.web").split("\n")
    key, line = printed[1], printed[3]
    file = tmp_path / "keys"
    file.write_text(line)
    assert KeyRing((), file).name_of(key.encode()) == "shop.web"
    assert key not in line
    assert "64 at most" in Home(tmp_path).recsys("api-key", "no name", fails=2)
