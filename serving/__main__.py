"""``python -m serving``: run the API."""

import argparse
import os
import sys
from collections.abc import Sequence

from serving.server import AddressError, serve
from serving.settings import ServingSettings, SettingsError

_OPTIONS = {
    "--host": ("RECSYS_API_HOST", "the address to listen on, 127.0.0.1 by default"),
    "--port": ("RECSYS_API_PORT", "the TCP port to listen on, 8000 by default"),
    "--workers": ("RECSYS_API_WORKERS", "processes that answer, one for each core by default"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 0 then, 1 with a message when it cannot start."""
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description="Serve the recommendations that are published in RECSYS_REDIS_URL over HTTP.",
    )
    for option, (variable, explanation) in _OPTIONS.items():
        parser.add_argument(option, dest=variable, help=f"{explanation} ({variable})")
    parser.add_argument(
        "--insecure",
        dest="RECSYS_API_INSECURE",
        action="store_const",
        const="true",
        help="serve a network without API keys (RECSYS_API_INSECURE)",
    )
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value}
    try:
        serve(ServingSettings.from_environment(os.environ | given))
    except (SettingsError, AddressError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
