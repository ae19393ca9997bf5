"""`recsys demo` and `recsys up` from first start to last process, and `make demo` itself."""

import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import psycopg
import pytest

from recsys_assets.local.postgres import PostgresServer
from tests.commands import ROOT, Home, Started, eventually, free_ports

DEMO = ("demo", "--households", 60)  # too few to prove a model of users by
HELD_BACK_FROM = datetime(2017, 12, 4, 4, 1, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("demo")).in_use() as home:
        yield home


def runs(home: Home) -> int:
    """How many runs the Dagster UI would show."""
    server = PostgresServer(home.state / "postgres")
    with server.in_use() as url, psycopg.connect(url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM dagster.runs").fetchone() or (0,)
        return int(count)


def test_make_demo_shows_recommendations_and_ends(home: Home):
    done = subprocess.run(
        ["make", "demo", "DEMO_FLAGS=--exit --households 60"],
        cwd=ROOT,
        env=home.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    printed = done.stdout
    assert done.returncode == 0, printed
    assert "9 assets in" in printed
    for outcome in ("top_buys_backtest: als_model is", "bought_together_backtest: basket_rules is"):
        assert re.search(rf"^{outcome} \w+ by \d+ measured", printed, re.M)
    tables = re.findall(r"^(Top Buys of .*|Bought together with .*)$", printed, re.M)
    assert [title.split(" ")[0] for title in tables] == ["Top"] * 2 + ["Bought"] * 3
    assert tables[0].startswith("Top Buys of user 1 (own purchases)")
    assert tables[1].startswith("Top Buys of guests (global)")
    rows = re.findall(r"^ +\d+ +\d+ {2,}(\S.*?) {2,}[\d,.]+ *$", printed, re.M)
    assert len(rows) >= 20 + 3  # all of them have names
    kept = sorted(re.sub("-.*", "", path.stem) for path in home.data.iterdir())
    assert kept == ["als_model", "als_model", "basket_rules", "basket_rules"]
    assert home.processes() | home.servers() == set()
    assert runs(home) == 1


def test_a_second_demo_reuses_what_is_there(home: Home):
    printed = home.recsys(*DEMO, "--exit")
    assert "materialized" not in printed
    assert "measured" not in printed
    assert "Top Buys of user 1 (own purchases)" in printed
    assert runs(home) == 1
    assert home.servers() == set()


@contextmanager
def staying(home: Home, *arguments: object, ports: int) -> Iterator[tuple[Started, str]]:
    """A command that stays up, and what it has printed by then."""
    options = ("--ui-port", ports, "--api-port", ports + 5)
    with home.started(*arguments, *options) as command:
        yield command, command.wait_for("Ctrl-C ends all of it")
    eventually(lambda: not home.processes(), "the end of all processes", seconds=30)


def address(printed: str, of: str) -> str:
    found = re.search(rf"{of} +(http://127\.0\.0\.1:\d+)/", printed)
    assert found, printed
    return found[1]


def test_ctrl_c_ends_all_that_up_started_on_the_next_free_ports(home: Home):
    ports = free_ports()
    with socket.socket() as ui, socket.socket() as api:
        for taken, port in ((ui, ports), (api, ports + 5)):
            taken.bind(("127.0.0.1", port))
            taken.listen()
        with staying(home, "up", ports=ports) as (command, printed):
            assert address(printed, "Dagster UI") == f"http://127.0.0.1:{ports + 1}"
            assert address(printed, "API") == f"http://127.0.0.1:{ports + 6}"
            page = httpx.get(f"{address(printed, 'Dagster UI')}/asset-groups", trust_env=False)
            assert page.status_code == 200
            for port in (ports + 1, ports + 6):  # what is bound to any address answers this one
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.2", port))
            guest = httpx.get(
                f"{address(printed, 'API')}/api/recommendations/top-buys/", trust_env=False
            )
            assert len(guest.json()["products"]) == 10
            assert command.interrupt() == 0, command.printed()
            assert "Traceback" not in command.printed()
            assert home.processes() | home.servers() == set()


def test_orders_come_in_and_reach_the_lists_until_they_are_stopped(home: Home):
    log = home.state / "logs" / "simulator.log"
    with staying(home, *DEMO, "--rate", 20, ports=free_ports()) as (command, printed):
        assert f"Orders come in at 20/s: tail -f {log}" in printed
        stop = re.search(r"To stop them: kill (\d+)", printed)
        assert stop, printed
        top_buys = f"{address(printed, 'API')}/api/recommendations/top-buys/"

        def knows_new_orders() -> bool:
            guest = httpx.get(top_buys, trust_env=False).json()
            return datetime.fromisoformat(guest["orders_through"]) > HELD_BACK_FROM

        eventually(knows_new_orders, "new orders in the guests' list")
        os.kill(int(stop[1]), signal.SIGTERM)
        eventually(lambda: "orders have come in" in log.read_text(), "the simulator's last words")
        eventually(lambda: not home.pids_of("recsys simulate"), "the simulator's end")
        assert httpx.get(top_buys, trust_env=False).status_code == 200
        assert command.interrupt() == 0, command.printed()
    assert re.search(
        r"\d+ of 315 orders, [\d.]+/s: 2017-12-\d\d \d\d:\d\d, user \d+ bought ", log.read_text()
    )
    again = home.recsys(*DEMO, "--exit")
    assert "materialized" not in again
    assert home.servers() == set()


def test_a_demo_that_is_killed_leaves_nothing_that_hinders_the_next_command(home: Home):
    with staying(home, *DEMO, ports=free_ports()) as (command, printed):
        api = address(printed, "API")
        assert httpx.get(f"{api}/health/ready", trust_env=False).status_code == 200
        os.kill(command.process.pid, signal.SIGKILL)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{api}/health/live", trust_env=False)
    assert "Top Buys of guests" in home.recsys("show", "guest")
    assert home.servers() == set()  # the last to use them has ended them


def test_up_ends_when_one_of_its_processes_does(home: Home):
    with staying(home, "up", ports=free_ports()) as (command, _):
        for pid in home.pids_of("-m serving"):
            os.kill(pid, signal.SIGKILL)
        assert command.process.wait(30) == 1
        assert "error: api ended with code" in command.printed()
    assert home.servers() == set()


def test_a_sample_with_all_of_its_orders_is_a_demo_without_new_ones(home: Home):
    home.recsys("load-sample", "--replace", "--households", 60)
    with staying(home, *DEMO, ports=free_ports()) as (command, printed):
        assert "9 assets in" in printed  # the models were of other orders
        assert "No orders come in: this sample was loaded with all of its orders." in printed
        assert home.pids_of("recsys simulate") == []
        assert command.interrupt() == 0, command.printed()


@pytest.mark.parametrize("end", [Started.interrupt, Started.terminate])
def test_a_run_that_is_ended_ends_at_once_and_spoils_nothing(
    home: Home, end: Callable[[Started], int]
):
    with home.started("materialize") as command:
        command.wait_for("materialized in")
        assert end(command) == 130
        assert "9 assets in" not in command.printed()
        assert "Traceback" not in command.printed()
    assert home.processes() | home.servers() == set()
    assert "Top Buys of user 1 (own purchases)" in home.recsys("show", "user", 1)
