"""`python -m spot_operator`: read the settings, serve, end.

Invariant: the process ends by `os._exit`, so that nothing that hangs (a watch, a call in
flight) can keep a process alive that no longer holds the Lease.
"""

import argparse
import asyncio
import gc
import logging
import os
import sys
from typing import Final

from spot_operator.credentials import Credentials, NoCredentials, find_credentials
from spot_operator.logs import set_up_logs
from spot_operator.service import Service
from spot_operator.settings import InvalidSetting, Settings, describe_settings, read_settings

GARBAGE_THRESHOLDS: Final = (20_000, 20, 50)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="spot_operator",
        description="Runs the spot training operator. In a pod it needs no arguments.",
        epilog="environment:\n" + describe_settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="PATH",
        help="run outside a cluster with the current context of this file (token or client certificate)",
    )
    return parser.parse_args(arguments)


def collect_garbage_less_often() -> None:
    """A listing is a million objects and no garbage: Python's own thresholds would have all of them looked
    through again and again while it is parsed, which then takes three times as long."""
    gc.freeze()  # modules stay
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def _run(settings: Settings, credentials: Credentials) -> None:
    code = await Service(settings, credentials).run()
    logging.shutdown()
    os._exit(code)


def main() -> None:
    options = _parse(sys.argv[1:])
    try:
        settings = read_settings(os.environ)
        credentials = find_credentials(os.environ, options.kubeconfig)
    except (InvalidSetting, NoCredentials) as error:
        sys.exit(f"spot_operator: {error}")
    set_up_logs(settings.log_level)
    collect_garbage_less_often()
    asyncio.run(_run(settings, credentials))


if __name__ == "__main__":
    main()
