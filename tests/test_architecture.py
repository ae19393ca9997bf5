"""Who may import whom, and who may know of Redis and Dagster.

A module is imported in a process of its own and asked what it brought along; every module that
exists is looked at.
"""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("recsys_assets.ingest", "recsys_assets.learn", "recsys_assets.evaluate")
DAGSTER_FILES = {"assets", "checks", "automation", "follow", "housekeeping", "resources"}
# What the command line runs the graph with, and what dagster.yaml names.
DAGSTER_FILES |= {"definitions", "batch", "rollback", "status", "dagster_storage", "run_launcher"}
LEARNING = {"pandas", "numpy", "scipy", "implicit", "mlxtend", "matplotlib"}
# What a Redis key would show in a string, a pattern or the constant parts of an f-string.
KEY_LITERAL = re.compile(r":top_buys|:bought_together|^(user|product|publication):\S*$")


def modules_of(*packages: str) -> Iterator[str]:
    """The names of all modules under the packages, as far as they exist."""
    for package in packages:
        folder = ROOT / package.replace(".", "/")
        if (folder / "__init__.py").is_file():
            yield package
            for module in pkgutil.walk_packages([str(folder)], prefix=f"{package}."):
                yield module.name


def pure_modules_of(*packages: str) -> Iterator[str]:
    """The modules under the packages but for those that are Dagster's."""
    for module in modules_of(*packages):
        if module.rpartition(".")[2] not in DAGSTER_FILES:
            yield module


def source_of(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def imports_of(module: str) -> frozenset[str]:
    """Every module that importing one brings along, directly or not."""
    program = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return frozenset(result.stdout.split())


def packages_of(modules: Iterable[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def own_imports_of(module: str) -> set[str]:
    """The modules that the source of one names in its import statements, absolute as all are."""
    names = set()
    for node in ast.walk(ast.parse(source_of(module).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def strings_of(module: str) -> Iterator[str]:
    """The string literals of a module but for its docstrings."""
    tree = ast.parse(source_of(module).read_text())
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in docstrings
        ):
            yield node.value


@pytest.mark.parametrize("module", ["serving.app", "serving.server", "serving.__main__"])
def test_serving_imports_nothing_of_the_graph(module: str):
    foreign = {"recsys_assets", "dagster", "psycopg", "pyarrow"} | LEARNING
    assert packages_of(imports_of(module)) & foreign == set()


def test_the_contract_needs_only_msgspec():
    installed = packages_of(imports_of("serving.contract")) - packages_of(imports_of("msgspec"))
    assert installed - sys.stdlib_module_names == {"serving"}


@pytest.mark.parametrize("module", [*modules_of("recsys_assets.publish")])
def test_publish_imports_the_contract_and_the_url_of_redis_and_nothing_else(module: str):
    served = {name for name in imports_of(module) if name.startswith("serving.")}
    # What the URL means is said once, for whoever writes the lists and whoever reads them.
    assert served <= {*modules_of("serving.contract"), "serving.redis", "serving.redis.url"}


@pytest.mark.parametrize("module", [*pure_modules_of("recsys_assets")])
def test_only_the_files_of_dagster_import_it(module: str):
    assert "dagster" not in packages_of(own_imports_of(module))


@pytest.mark.parametrize("module", [*pure_modules_of(*STAGES, "recsys_assets.publish")])
def test_the_logic_of_a_stage_brings_no_dagster_along(module: str):
    assert "dagster" not in packages_of(imports_of(module))


@pytest.mark.parametrize("module", [*pure_modules_of(*STAGES)])
def test_the_logic_before_publish_knows_no_redis(module: str):
    assert packages_of(imports_of(module)) & {"redis", "serving"} == set()


@pytest.mark.parametrize("module", [*modules_of("serving", "recsys_assets")])
def test_no_file_but_the_contract_holds_a_redis_key(module: str):
    if module in modules_of("serving.contract"):
        return
    assert [text for text in strings_of(module) if KEY_LITERAL.search(text)] == []
