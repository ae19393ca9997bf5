"""The API in a worker process of the server."""

import gc

from serving.app import create_app
from serving.front import Front


def create_worker() -> Front:
    """The API, with its settings from the environment.

    What has been made until now stays for good: the collector need not look through it again and
    again, for some 40 ms each time, in which nothing is answered.
    """
    app = create_app()
    gc.collect()
    gc.freeze()
    return app
