"""`./run demo`: two jobs on an own small cluster, shown live; exit code 0 if all went as it should."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api_schemas import display
from api_schemas.board import Board
from api_schemas.client import Client
from api_schemas.errors import EmascaleError
from api_schemas.wording import scores
from deploy.demo.play import Result, clear, play
from deploy.demo.server import ROOT, SLOTS, STOPPING, NotServed, served
from deploy.demo.verdict import shortcomings

INTERRUPTED = 130
STORY = (
    "Job a trains on all four slots. Once 30 % are done job b arrives, which goes first: a gives up two workers, and "
    "takes them back when b has ended. (kappa: batch over base batch; rho: momentum of the EMA.)"
)


def main(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service running until Ctrl-C.")] = False,
    data: Annotated[Path, typer.Option(help="Folder for everything that the demo writes.")] = ROOT / ".emascale/demo",
) -> None:
    """Two jobs share four slots: a trains on all of them, gives two to b, and takes them back when b has ended."""
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)  # every way to stop it ends the service too
    console = display.console()
    try:
        sys.exit(_demonstrate(console, data.absolute(), keep))
    except (NotServed, EmascaleError) as error:
        console.print(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left running.")
        sys.exit(INTERRUPTED)


def _demonstrate(console: Console, data: Path, keep: bool) -> int:
    console.print(f"Starting the service and a Ray cluster of {SLOTS} slots.")
    with served(data) as address, Client(address) as client:
        console.print(f"Dashboard: {address}\n{STORY}\n")
        clear(client, time.sleep)
        with Board(client, console) as board:
            results = play(client, board, time.sleep)
        _report(console, results)
        missing = shortcomings(results)
        console.print("\n".join(missing) or "Both jobs succeeded, and no resize lost a step.")
        if missing:
            console.print(f"The service's log: {data / 'service.log'}", soft_wrap=True)
        stays = "Ctrl-C ends it" if keep else "ends with the demo; `./run demo --keep` leaves it there"
        console.print(f"Dashboard: {address} ({stays}); the API to read: {address}/docs", soft_wrap=True)
        if keep:
            signal.pause()
    return 1 if missing else 0


def _report(console: Console, results: Sequence[Result]) -> None:
    for result in results:
        view = result.view
        console.print(f"\n{view.name}: {view.status.phase}. {view.status.message}")
        if view.evaluation is not None:
            console.print(f"Evaluation: {scores(view.evaluation.target, view.evaluation.ema)}")
        for file in result.artifacts:
            console.print(f"{file.name}: {file.location}", soft_wrap=True)
        if result.resizes:
            console.print(display.resize_list(result.resizes))


if __name__ == "__main__":
    typer.run(main)
