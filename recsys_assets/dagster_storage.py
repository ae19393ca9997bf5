"""Dagster's own storage: a schema of its own in the configured database, files in the state folder.

`dagster.yaml` names these classes, so that RECSYS_DATABASE_URL and RECSYS_STATE_DIR are all there
is to set, and Dagster's tables never mix with the shop's. Nothing else belongs here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import psycopg
from dagster import DagsterInstance, Field, StringSource
from dagster._core.instance import InstanceRef
from dagster._core.storage.local_compute_log_manager import LocalComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import DagsterPostgresException, create_pg_engine
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from recsys_assets.database import ShopError, connect
from recsys_assets.local.services import use_services
from recsys_assets.settings import load_settings, project_root


class _Config(TypedDict):
    schema: str


class SchemaPostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in one schema of the database at RECSYS_DATABASE_URL.

    RECSYS_DAGSTER_DATABASE_URL puts them into another database. The schema is created when missing.
    Where no URL is set, the embedded servers are used for as long as this process lives, and its
    children find their URLs in the environment.
    """

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """The schema's name."""
        return {"schema": Field(StringSource, default_value="dagster", is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData | None, config_value: _Config
    ) -> "SchemaPostgresStorage":
        """The storage that `dagster.yaml` asks for."""
        settings = use_services(load_settings())
        url = os.environ.get("RECSYS_DAGSTER_DATABASE_URL") or settings.database_url
        assert url is not None
        schema = config_value["schema"]
        _create_schema(url, schema)
        storage = cls(inst_data=inst_data, postgres_url=schema_url(url, schema))
        storage.keep_connections()
        return storage

    def keep_connections(self) -> None:
        """Keep one connection for runs, one for events and one for schedules.

        Dagster would open a new one for each of the hundreds of statements of a run, and PostgreSQL
        start a process for it. A connection is tried before its use, so that a restarted server
        costs no run; Dagster tries again as before where none can be opened.
        """
        parts: tuple[Any, ...] = (self.run_storage, self.event_log_storage, self.schedule_storage)
        for part in parts:
            part._engine = create_pg_engine(
                self.postgres_url,
                isolation_level="AUTOCOMMIT",
                pool_size=1,
                max_overflow=-1,
                pool_pre_ping=True,
            )


class StateComputeLogManager(LocalComputeLogManager):
    """What runs print, in ``dagster/logs`` of the state folder."""

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """Nothing to configure here."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: object,  # noqa: ARG003
    ) -> "StateComputeLogManager":
        """The log manager that `dagster.yaml` asks for."""
        return cls(base_dir=str(_state_folder() / "logs"), inst_data=inst_data)


class StateArtifactStorage(LocalArtifactStorage):
    """Dagster's other files, in ``dagster`` of the state folder."""

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """Nothing to configure here."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: object,  # noqa: ARG003
    ) -> "StateArtifactStorage":
        """The storage that `dagster.yaml` asks for."""
        return cls(base_dir=str(_state_folder()), inst_data=inst_data)


UNANSWERED = (OperationalError, DagsterPostgresException)
"""What Dagster's storage raises when its database is away."""


@contextmanager
def open_instance() -> Iterator[DagsterInstance]:
    """The Dagster instance of this project, for runs in this process.

    What they print is not captured: Dagster would send the progress bars through a file, too.
    Raises ShopError when the storage does not answer, which Dagster tries for half a minute.
    """
    home = os.environ.setdefault("DAGSTER_HOME", str(project_root()))
    reference = InstanceRef.from_dir(home, overrides={"compute_logs": _NOT_CAPTURED})
    with DagsterInstance.from_ref(reference) as instance:
        try:
            yield instance
        except UNANSWERED as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ShopError(
                f"PostgreSQL did not answer Dagster, which keeps its runs there: {reason}. Check"
                " that it runs and that RECSYS_DATABASE_URL, or RECSYS_DAGSTER_DATABASE_URL where"
                " that is set, is right, then run again: nothing is lost."
            ) from error


_NOT_CAPTURED = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}


def _state_folder() -> Path:
    return load_settings().state_dir / "dagster"


def schema_url(url: str, schema: str) -> str:
    """The SQLAlchemy URL of sessions that see only ``schema``, for psycopg2."""
    parsed = make_url(url).set(drivername="postgresql+psycopg2")
    given: Any = parsed.query.get("options", "")
    options = f"{given} -csearch_path={schema}".strip()
    return parsed.update_query_dict({"options": options}).render_as_string(hide_password=False)


def _create_schema(url: str, schema: str) -> None:
    with connect(url, autocommit=True) as connection:
        exists = connection.execute(
            "SELECT 1 FROM pg_namespace WHERE nspname = %s", [schema]
        ).fetchone()
        if exists:
            return
        try:
            connection.execute(
                sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema))
            )
        except psycopg.errors.UniqueViolation:
            pass  # another process was faster
        except psycopg.errors.InsufficientPrivilege as error:
            raise ShopError(
                f"the schema {schema!r} for Dagster's storage is missing and may not be created:"
                f" {error}. Create it, or set RECSYS_DAGSTER_DATABASE_URL to a database where it"
                " may be."
            ) from error
