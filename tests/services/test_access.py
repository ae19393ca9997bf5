"""Who is let in: API keys, the rate limit, other origins, and the headers of every answer."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis
from httpx import Response
from litestar import Litestar
from litestar.testing import TestClient

from serving.__main__ import main
from serving.access import OPEN_TO_ALL
from serving.api_keys import new_key, require_keys_or_loopback
from serving.app import create_app
from serving.settings import ServingSettings, SettingsError
from tests.published import Publisher
from tests.serving_processes import free_port

HOT = "/api/recommendations/top-buys?limit=5"
HOT_PRODUCT = "/api/recommendations/bought-together/1"
ORDINARY = "/api/recommendations/buy-again?user_id=1"
GUARDED = [HOT, HOT_PRODUCT, ORDINARY, "/api/explorer/users", "/metrics", "/nothing/here"]
OPEN = [
    "/",
    "/health/live",
    "/health/ready",
    "/static/style.css",
    "/schema",
    "/schema/openapi.json",
]
SHOP = "https://shop.example"

Client: TypeAlias = TestClient[Litestar]
Open: TypeAlias = Callable[..., Client]


@pytest.fixture
def opened(redis_url: str) -> Iterator[Open]:
    """Makes a client of the API with some settings."""
    with ExitStack() as stack:

        def client(**settings: Any) -> Client:
            chosen: Any = {"redis_url": redis_url, "redis_timeout_ms": 2000} | settings
            app: Any = create_app(ServingSettings(**chosen))
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield client


def bearing(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def problem(response: Response) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == response.status_code
    return response.status_code, response.json()["detail"]


def test_without_keys_all_may_ask(opened: Open):
    api = opened()
    for path in [*GUARDED[:-1], *OPEN]:
        assert api.get(path).status_code == 200, path


@pytest.mark.parametrize("path", GUARDED)
def test_a_key_is_needed_and_any_will_do(opened: Open, path: str):
    (one, kept), (other, also_kept) = new_key("shop"), new_key("app")
    api = opened(api_keys=f"{kept},{also_kept}")
    for headers in [bearing(one), bearing(other), {"X-API-Key": one}]:
        assert api.get(path, headers=headers).status_code in {200, 404}
    assert api.get(path, headers={"authorization": f"bearer  {other} "}).status_code in {200, 404}
    refused = api.get(path)
    assert problem(refused)[0] == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    never_known, _ = new_key("shop")
    for wrong in [
        bearing(never_known),
        bearing(one[:-1]),
        bearing(str(kept)),
        bearing(kept.digest.hex()),
        bearing(""),
        {"X-API-Key": ""},
        {"Authorization": f"Basic {one}"},
        {"Authorization": one},
    ]:
        assert problem(api.get(path, headers=wrong))[0] == 401


@pytest.mark.parametrize("path", OPEN)
def test_what_is_open_needs_no_key(opened: Open, path: str):
    api = opened(api_keys=str(new_key("shop")[1]), rate_limit="1/day")
    assert [api.get(path).status_code for _ in range(3)] == [200] * 3


def test_every_other_route_is_guarded(opened: Open):
    api = opened(api_keys=str(new_key("shop")[1]))
    document = api.get("/schema/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"header": []}]
    open_to_all = {path for path, of in document["paths"].items() if "security" in of["get"]}
    assert open_to_all == {"/health/live", "/health/ready"}
    assert set(document["components"]["securitySchemes"]) == {"bearer", "header"}
    routes = [path for path in document["paths"] if not path.startswith("/health")]
    assert len(routes) > 5
    for path in routes:
        assert api.get(path).status_code == 401
        assert {"401", "429"} <= set(document["paths"][path]["get"]["responses"])


@pytest.mark.parametrize(
    "path",
    [
        "//metrics",
        "/./metrics",
        "/%2e/metrics",
        "/metrics/",
        "/static/../metrics",
        "/static/..%2f..%2fapp.py",
        "/schema/../metrics",
        "/health/..//metrics",
        "/health",
        "/healthy",
    ],
)
def test_no_spelling_of_a_path_gets_round_the_gate(opened: Open, path: str):
    api = opened(api_keys=str(new_key("shop")[1]))
    assert api.get(f"http://testserver{path}").status_code in {400, 401, 404}


@pytest.mark.parametrize("path", ["", "*", "metrics", "//", "/\n", "/healthz", "/staticky/x"])
def test_odd_paths_are_not_open(path: str):
    assert not OPEN_TO_ALL.fullmatch(path)


def test_without_keys_the_document_asks_for_none(opened: Open):
    document = opened().get("/schema/openapi.json").json()
    assert "security" not in document
    assert "securitySchemes" not in document["components"]


def test_only_answers_without_keys_are_for_shared_caches(opened: Open):
    key, kept = new_key("shop")
    assert opened().get(HOT).headers["Cache-Control"].startswith("public")
    with_keys = opened(api_keys=str(kept))
    for path in (HOT, f"{HOT}&explain=true"):
        answer = with_keys.get(path, headers=bearing(key))
        assert answer.headers["Cache-Control"].startswith("private")


@pytest.mark.parametrize(
    ("query", "kept_by"),
    [
        ("", "public"),
        ("?limit=3", "public"),
        ("?user_id=1", "private"),
        ("?user%5Fid=1", "private"),
        ("?%75ser_id=1&limit=3", "private"),
        ("?user_id=1&explain=true", "private"),
    ],
)
def test_a_list_of_a_user_is_for_their_browser_alone(opened: Open, query: str, kept_by: str):
    answer = opened(max_age_seconds=7).get(f"/api/recommendations/top-buys{query}")
    assert answer.headers["Cache-Control"] == f"{kept_by}, max-age=7"


@pytest.mark.parametrize("path", [HOT, ORDINARY])
def test_the_limit_is_of_each_name(opened: Open, path: str):
    (one, kept), (other, also_kept), (third, kept_too) = map(new_key, ("shop", "app", "shop"))
    api = opened(api_keys=f"{kept},{also_kept},{kept_too}", rate_limit="3/day")
    answers = [api.get(path, headers=bearing(key)) for key in (one, third, one, third, one)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["RateLimit"].partition(";t=")[0] for answer in answers] == [
        f'"default";r={left}' for left in (2, 1, 0, 0, 0)
    ]
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"default";q=3;w=86400'}
    status, detail = problem(answers[-1])
    wait = int(answers[-1].headers["Retry-After"])
    assert (status, detail) == (429, f"You ask more often than you may; wait {wait} s.")
    assert 0 < wait <= 86_400
    assert api.get(path, headers=bearing(other)).status_code == 200


def test_workers_count_together_and_the_counters_expire(opened: Open, redis_url: str):
    key, kept = new_key("shop")
    workers = [opened(api_keys=str(kept), rate_limit="40/hour") for _ in range(2)]
    codes = [workers[n % 2].get(HOT, headers=bearing(key)).status_code for n in range(44)]
    assert codes == [200] * 40 + [429] * 4
    with redis.Redis.from_url(redis_url) as client:
        (counter,) = client.keys("rate:*")
        assert counter.startswith(b"rate:shop:")
        assert 3600 <= client.ttl(counter) <= 7200


def test_without_keys_the_limit_is_of_each_address(opened: Open, redis_url: str):
    api = opened(rate_limit="1/hour")
    assert [api.get(HOT).status_code for _ in range(2)] == [200, 429]
    with redis.Redis.from_url(redis_url) as client:
        (counter,) = client.keys("rate:*")
    assert counter.startswith(b"rate:testclient:")


def test_without_redis_nothing_is_limited(opened: Open):
    api = opened(rate_limit="1/day", redis_url="redis://127.0.0.1:1")
    assert [api.get(HOT).status_code for _ in range(3)] == [503] * 3
    assert api.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", [HOT, HOT_PRODUCT, ORDINARY, "/metrics", "/nothing/here"])
def test_pages_of_allowed_origins_may_read_answers(opened: Open, path: str):
    api = opened(cors_origins=f"https://other.example,{SHOP}")
    answer = api.get(path, headers={"Origin": SHOP})
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
    for origin in ("https://evil.example", f"{SHOP}.evil.example", "null", None):
        strange = api.get(path, headers={"Origin": origin} if origin else {})
        assert "Access-Control-Allow-Origin" not in strange.headers
        assert strange.headers["Vary"] == answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("path", [HOT, ORDINARY])
def test_a_browser_asks_before_without_a_key(opened: Open, path: str):
    api = opened(cors_origins=SHOP, api_keys=str(new_key("page")[1]))
    asked = {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-api-key",
    }
    answer = api.options(path, headers={"Origin": SHOP, **asked})
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert "X-API-Key" in answer.headers["Access-Control-Allow-Headers"]
    strange = api.options(path, headers={"Origin": "https://evil.example", **asked})
    assert "Access-Control-Allow-Origin" not in strange.headers
    refused = api.get(path, headers={"Origin": SHOP})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == SHOP
    assert api.options(path).status_code == 401


def test_any_origin_may_be_allowed_and_none_is_by_itself(opened: Open):
    anyone = {"Origin": "https://anywhere.example"}
    answer = opened(cors_origins="*").get(HOT, headers=anyone)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    closed = opened().get(HOT, headers=anyone)
    assert not {"vary", "access-control-allow-origin"} & set(closed.headers)


def test_every_answer_is_safe_in_a_browser(opened: Open, published: Publisher):
    published.top_buys(None, 1, 2)
    api = opened()
    not_modified = {"If-None-Match": api.get(HOT).headers["ETag"]}
    answers = [api.get(path) for path in [*GUARDED, *OPEN]]
    answers.append(api.get(HOT, headers=not_modified))
    assert answers[-1].status_code == 304
    answers.append(api.post(HOT))
    answers += [api.get(path) for path in ("//", "/schema//", "//schema", "/schema/none")]
    for answer in answers:
        assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
        assert answer.headers.get_list("Referrer-Policy") == ["no-referrer"]
        if "html" in answer.headers.get("Content-Type", ""):
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; script-src 'self';")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Frame-Options"] == "DENY"
    assert sum("html" in answer.headers.get("Content-Type", "") for answer in answers) > 2


def settings_for(host: str, **more: Any) -> ServingSettings:
    return ServingSettings(redis_url="redis://127.0.0.1:1", host=host, **more)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_needs_no_keys(host: str):
    require_keys_or_loopback(settings_for(host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"])
def test_a_network_needs_keys_or_a_word(host: str):
    with pytest.raises(SettingsError, match="recsys api-key") as refused:
        require_keys_or_loopback(settings_for(host))
    assert host in str(refused.value)
    assert "--insecure" in str(refused.value)
    require_keys_or_loopback(settings_for(host, insecure=True))
    require_keys_or_loopback(settings_for(host, api_keys=str(new_key("shop")[1])))


@pytest.mark.parametrize("line", ["shop", "shop:abc", f"sh op:{'0' * 64}", f"shop:{'g' * 64}"])
def test_what_are_no_keys_is_told_at_the_start(line: str, tmp_path: Path):
    file = tmp_path / "keys"
    for content in (line, f"# one\n\n{line}\n", ""):
        file.write_text(content)
        with pytest.raises(SettingsError, match="RECSYS_API_KEYS_FILE") as refused:
            create_app(settings_for("127.0.0.1", api_keys_file=str(file)))
        assert "0" * 64 not in str(refused.value)
    with pytest.raises(SettingsError, match="No such file"):
        create_app(settings_for("127.0.0.1", api_keys_file=str(tmp_path / "none")))
    with pytest.raises(SettingsError, match="RECSYS_API_KEYS: entry 1"):
        create_app(settings_for("127.0.0.1", api_keys=line))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECSYS_API_RATE_LIMIT", "100"),
        ("RECSYS_API_RATE_LIMIT", "0/second"),
        ("RECSYS_API_RATE_LIMIT", "100/fortnight"),
        ("RECSYS_API_CORS_ORIGINS", "shop.example"),
        ("RECSYS_API_CORS_ORIGINS", "https://shop.example/"),
        ("RECSYS_API_CORS_ORIGINS", "https://a.example, https://b.example"),
        ("RECSYS_API_INSECURE", "perhaps"),
    ],
)
def test_a_bad_setting_is_told_by_its_variable(variable: str, value: str):
    environment = {"RECSYS_REDIS_URL": "redis://127.0.0.1:6379", variable: value}
    with pytest.raises(SettingsError, match=variable):
        ServingSettings.from_environment(environment)


def test_it_does_not_start_for_a_network_without_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("RECSYS_REDIS_URL", "redis://127.0.0.1:1")
    assert main(["--host", "0.0.0.0", "--port", str(free_port())]) == 1
    error = capsys.readouterr().err
    assert "0.0.0.0 lets others in" in error
    assert "RECSYS_API_KEYS_FILE" in error
    assert not os.environ.get("RECSYS_API_HOST")


@pytest.mark.parametrize("said", ["true", "True", "1"])
def test_insecure_may_be_said_in_the_environment(said: str):
    environment = {"RECSYS_REDIS_URL": "redis://127.0.0.1:1", "RECSYS_API_HOST": "0.0.0.0"}
    with pytest.raises(SettingsError, match="RECSYS_API_INSECURE"):
        require_keys_or_loopback(ServingSettings.from_environment(environment))
    environment["RECSYS_API_INSECURE"] = said
    require_keys_or_loopback(ServingSettings.from_environment(environment))
