"""The command line `recsys`: everything a person does with the system, one command each.

Commands are thin: they start what they need, call a stage, and print. Exit codes: 0 done, 1 failed,
2 wrong usage.
"""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from recsys_assets.cli_shop import EXISTING, Households, Rate
from recsys_assets.cli_shop import commands as shop_commands
from recsys_assets.cli_show import commands as show_commands
from recsys_assets.session import open_session

if TYPE_CHECKING:
    from recsys_assets.batch import Batch

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Product recommendations from the orders in your PostgreSQL.\n\n"
    "Where RECSYS_DATABASE_URL or RECSYS_REDIS_URL is unset, an embedded server is started for the"
    " command and keeps its data in .recsys/.",
    epilog="A first look: recsys demo. With a shop of your own: set the two URLs, then recsys init,"
    " recsys materialize, recsys up.",
)
app.add_typer(shop_commands)
app.add_typer(show_commands, name="show")

console = Console()
errors = Console(stderr=True)

Port = Annotated[int, typer.Option(min=1, max=65535)]
RunConfig = Annotated[
    Path | None,
    typer.Option(help="A YAML file of Dagster run config, as the launchpad takes.", **EXISTING),
]


@app.command()
def demo(
    leave: Annotated[
        bool, typer.Option("--exit", help="End after the tables instead of staying up.")
    ] = False,
    households: Households = None,
    ui_port: Port = 3000,
    api_port: Port = 8000,
    simulated: Annotated[
        bool,
        typer.Option("--simulate/--no-simulate", help="Let orders come in while it stays up."),
    ] = True,
    rate: Rate = 0.5,
) -> None:
    """Load the sample shop, materialize everything, show it, and stay up with UI and API.

    1.47 million real order lines of 2,469 households. Those of the last four weeks come in as new
    orders while it stays up. A second run reuses what is there.
    """
    from recsys_assets.console import print_examples
    from recsys_assets.demo import ALL_LOADED, is_published, load_demo, print_outcomes
    from recsys_assets.running import stay_up

    with open_session() as session:
        sample = load_demo(console, session, households)
        if not is_published(session):
            _materialize()
            print_outcomes(console, session)
        print_examples(console, session)
        if leave:
            return
        if simulated and sample.until is None:
            console.print(f"\n{ALL_LOADED}", highlight=False)
        stay_up(
            console,
            session,
            ui_port=ui_port,
            api_port=api_port,
            automation=True,
            orders_rate=rate if simulated and sample.until else None,
        )


@app.command()
def up(ui_port: Port = 3000, api_port: Port = 8000) -> None:
    """Start the Dagster UI, its daemon and the API, and stay until Ctrl-C. Loads no data."""
    from recsys_assets.running import stay_up

    with open_session() as session:
        automation = session.settings.automation_enabled
        stay_up(console, session, ui_port=ui_port, api_port=api_port, automation=automation)


@app.command()
def materialize(
    assets: Annotated[
        list[str] | None, typer.Argument(help="Assets; all when none is named.")
    ] = None,
    config: RunConfig = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish models whatever their backtests say.")
    ] = False,
) -> None:
    """Materialize assets in dependency order: interactions, models, backtests, lists.

    The run is in the Dagster UI like any other. A model that its backtest refuses is not published;
    --force overrides that, and is recorded in the model.
    """
    from recsys_assets.batch import MaterializationError

    run_config = _read_yaml(config) if config else {}
    with open_session() as session:
        try:
            _materialize(tuple(assets or ()), run_config, force=force)
        except MaterializationError:
            _print_backtests(errors, session.settings.data_dir, only_refused=True)
            raise


@app.command()
def evaluate(config: RunConfig = None) -> None:
    """Train both models, backtest them, and show the figures beside all baselines.

    Publishes nothing; a model that is accepted is used by the next publication.
    """
    from recsys_assets.backtests import BACKTESTS

    run_config = _read_yaml(config) if config else {}
    with open_session(redis=False) as session:
        try:
            evaluated = [name for pair in BACKTESTS.items() for name in pair]
            _materialize(("user_product_interactions", *evaluated), run_config)
        finally:
            _print_backtests(console, session.settings.data_dir)


@app.command()
def tune(
    minutes: Annotated[
        float, typer.Option(min=0, help="For Top Buys; Bought Together takes about one more.")
    ] = 10.0,
    held_out_days: Annotated[
        int, typer.Option(min=1, help="Days to choose by, and as many after them to report.")
    ] = 28,
    seed: Annotated[int, typer.Option(help="Of the trials that are drawn.")] = 7,
) -> None:
    """Search for the settings that suit this shop, and write them where the graph reads them.

    Tries recipes of Top Buys and shrinkages of Bought Together on past orders, reports the best on
    later ones, and writes it to data/tuned.toml.
    """
    from recsys_assets.tuning import tune_shop

    with open_session(redis=False) as session:
        _materialize(("user_product_interactions",))
        tune_shop(console, session, minutes=minutes, held_out_days=held_out_days, seed=seed)


@app.command()
def reconcile() -> None:
    """Compare every order with what it counts for, repair what differs, publish what that changes.

    Finds what no refresh can see: deleted orders, late commits, changes without a new updated_at.
    """
    from recsys_assets.console import status_table

    with open_session():
        done = _materialize(
            ("user_product_interactions", "global_top_buys", "user_top_buys"),
            {
                "ops": {
                    "user_product_interactions": {"config": {"reconcile": True}},
                    "user_top_buys": {"config": {"only_changed": True}},
                }
            },
        )
    found = done.metadata["user_product_interactions"]
    repairs = [
        (name.removeprefix("repaired_").replace("_", " "), f"{number:,}")
        for name, number in found.items()
        if name.startswith("repaired_")
    ]
    console.print(status_table("Repaired", ("what", "number"), repairs))


@app.command()
def rollback(
    artifact: Annotated[str, typer.Argument(help="als_model or basket_rules")],
    to: Annotated[
        str | None, typer.Option(help="A kept version; default: the one before the current.")
    ] = None,
    config: RunConfig = None,
) -> None:
    """Make an earlier version of a model current again and publish its lists.

    Without --to, a second rollback goes one version further back.
    """
    from recsys_assets.batch import UsageError
    from recsys_assets.dagster_storage import open_instance
    from recsys_assets.definitions import build_definitions
    from recsys_assets.rollback import roll_back

    run_config = _read_yaml(config) if config else {}
    with open_session() as session, open_instance() as instance:
        folder = session.settings.data_dir
        definitions = build_definitions()
        try:
            done = roll_back(
                definitions, instance, console, folder, artifact, to=to, config=run_config
            )
        except UsageError as error:
            raise typer.BadParameter(str(error)) from error
    console.print(f"Its lists are published, run {done.run_id}")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Default: RECSYS_API_HOST, 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: RECSYS_API_PORT, 8000.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Default: RECSYS_API_WORKERS, one for each core.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Serve a network without API keys.")
    ] = False,
) -> None:
    """Serve the API until Ctrl-C; beyond this machine, to those with API keys."""
    import os

    from serving.server import serve as serve_api
    from serving.settings import ServingSettings

    with open_session(database=False):
        given = {"HOST": host, "PORT": port, "WORKERS": workers, "INSECURE": insecure or None}
        os.environ.update({f"RECSYS_API_{k}": str(v) for k, v in given.items() if v is not None})
        serve_api(ServingSettings.from_environment())


@app.command()
def api_key(
    name: Annotated[str, typer.Argument(help="Whose it is: letters, digits, dots and dashes.")],
) -> None:
    """Make a key to the API, and the line that lets it in; neither is kept.

    A name may have several keys, as while a new one takes the place of an old one.
    """
    from serving.api_keys import new_key

    try:
        key, kept = new_key(name)
    except ValueError as error:
        raise typer.BadParameter("letters, digits, dots, dashes, 64 at most") from error
    print(f"The key, to be given to {name} and not shown again:\n{key}")
    print(f"The line for the file RECSYS_API_KEYS_FILE:\n{kept}")


@app.command()
def status() -> None:
    """Show how far orders are processed, and how old and complete each artifact and list is."""
    from recsys_assets.dagster_storage import open_instance
    from recsys_assets.status import status_tables

    with (
        open_session() as session,
        session.database() as connection,
        session.redis() as client,
        open_instance() as instance,
    ):
        for table in status_tables(session.settings, connection, client, instance):
            console.print(table)


def main() -> None:
    """The entry point: errors that a person can mend are one message, and exit code 1."""
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        app()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(130)
    except Exception as error:
        if type(error).__module__.split(".")[0] in ("recsys_assets", "serving", "psycopg"):
            _fail(error)
        raise


def _fail(error: Exception) -> NoReturn:
    errors.print("[bold red]error:[/]", end=" ")
    errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{path} must hold a mapping, such as ops: {{...}}")
    return content


def _print_backtests(where: Console, folder: Path, *, only_refused: bool = False) -> None:
    from recsys_assets.backtests import (
        BACKTESTS,
        WIDTH,
        backtest_tables,
        evaluated_last,
        refused_candidate,
    )

    where.width = max(where.width, WIDTH)  # narrower, figures would be cut off
    for name in BACKTESTS:
        header = (refused_candidate if only_refused else evaluated_last)(folder, name)
        for table in backtest_tables(header) if header else ():
            where.print(table)


def _materialize(
    assets: tuple[str, ...] = (), run_config: dict[str, Any] | None = None, *, force: bool = False
) -> "Batch":
    from recsys_assets.batch import UsageError
    from recsys_assets.batch import materialize as run
    from recsys_assets.dagster_storage import open_instance
    from recsys_assets.definitions import build_definitions

    with open_instance() as instance:
        try:
            batch = run(
                build_definitions(),
                instance,
                console,
                assets=assets,
                config=run_config,
                force=force,
            )
        except UsageError as error:
            raise typer.BadParameter(str(error)) from error
    count, total = len(batch.seconds), sum(batch.seconds.values())
    what = "asset" if count == 1 else "assets"
    console.print(f"{count} {what} in {total:.1f} s, run {batch.run_id}")
    return batch
