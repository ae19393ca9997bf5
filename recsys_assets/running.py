"""The running system as `demo` and `up` keep it: started, announced, watched, ended."""

import os
from contextlib import suppress

from rich.console import Console

from recsys_assets.local.processes import running_system
from recsys_assets.session import Session
from recsys_assets.settings import project_root


def stay_up(
    console: Console,
    session: Session,
    *,
    ui_port: int,
    api_port: int,
    automation: bool,
    orders_rate: float | None = None,
) -> None:
    """Run the Dagster UI, its daemon and the API until Ctrl-C; say where they are.

    ``orders_rate`` lets that many of the sample's orders come in every second. Raises ServiceError
    when a process does not start or fails.
    """
    os.environ["RECSYS_AUTOMATION_ENABLED"] = str(automation).lower()
    logs = session.settings.state_dir / "logs"
    console.print("\nStarting the Dagster UI, its daemon and the API ...")
    simulator = ("recsys", "simulate", "--rate", str(orders_rate))
    with running_system(
        project_root(),
        logs,
        dagster_port=ui_port,
        api_port=api_port,
        extra={"simulator": simulator} if orders_rate else None,
    ) as local:
        console.print(f"Dagster UI  {local.dagster}/asset-groups")
        console.print(f"API         {local.api}/")
        console.print(f"            {local.api}/api/recommendations/top-buys/?user_id=1")
        console.print(f"Logs        {logs}")
        if orders_rate:
            console.print(
                f"\nOrders come in at {orders_rate:g}/s: tail -f {logs / 'simulator.log'}\n"
                f"To stop them: kill {local.pid('simulator')}   (or recsys demo --no-simulate)",
                soft_wrap=True,
            )
        console.print("\nCtrl-C ends all of it.")
        with suppress(KeyboardInterrupt):
            local.watch()
        console.print("Ending ...")
