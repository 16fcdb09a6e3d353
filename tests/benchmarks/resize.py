"""How long a resize, a kill and a freeze stop the training, here and elsewhere: `./run bench resize [--json FILE]`.

`pause_s` of a grow and a shrink: the end of the last step before to the start of the first after. Of a kill (SIGKILL)
and a freeze (SIGSTOP) of the newest worker: from the signal until training goes on. `decide_s`: from the request to the
decision, or, with launchers that do not tell, to the last step at the old size. `steps_lost`: done, and to be done
again, summed over all repeats. Everybody trains the same MLP with AdamW and an EMA, 8 samples a worker, on 2 and 3
workers of this machine. `p2p_bytes_per_s` is what gloo moves between two processes, as our own hand-over sends.

Peers: in_place and ray_train are the engines of this service; torchrun and torchft are in tests/benchmarks/peers.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tests.benchmarks import MODELS, finish, parameters, say, spread
from tests.benchmarks.peers import bandwidth, launcher, service, torchft
from tests.benchmarks.peers.change import EVENTS, Change

STATE_TENSORS = 4
"""Of the parameters' size: weights, EMA, and AdamW's two moments."""

LOG = 2000
"""Characters of the last words of a peer that did not come through."""

PEERS = {
    "in_place": lambda model: service.job("in_place", model),
    "ray_train": lambda model: service.job("ray_train", model),
    "torchrun": launcher.torchrun,
    "torchft": torchft.replicas,
}


def main(
    peers: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(PEERS),
    models: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(MODELS),
    events: Annotated[str, typer.Option(help="Which, separated by commas.")] = ",".join(EVENTS),
    repeat: Annotated[int, typer.Option(help="Changes of each kind, of in_place and of the smallest model.")] = 5,
    repeat_slow: Annotated[int, typer.Option(help="Of the other peers at larger models, and of their freezes.")] = 5,
    torchft_python: Annotated[str, typer.Option(help=torchft.HELP)] = "",
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, write all."""
    wanted = _wanted(events)
    torchft.python = torchft_python
    rates = bandwidth.measure()
    result: dict[str, Any] = {"p2p_bytes_per_s": round(statistics.median(rates)), "p2p_range": spread(rates, 0)}
    say(result)
    result |= {"rows": [], "left_out": {}}
    for model in models.split(","):
        for peer in peers.split(","):
            if peer == "torchft" and not torchft_python:
                result["left_out"]["torchft"] = torchft.HELP
                continue
            try:
                result["rows"] += _measure(peer, model, wanted, repeat, repeat_slow)
            except Exception as error:  # it does not come back; the others are measured all the same
                result["left_out"][f"{peer}, {model}"] = str(error)[-LOG:]
    finish(result, output)


def _wanted(events: str) -> list[str]:
    wanted = events.split(",")
    if unknown := set(wanted) - set(EVENTS):
        raise typer.BadParameter(f"no such event: {', '.join(sorted(unknown))}")
    if ("shrink" in wanted) != ("grow" in wanted):
        raise typer.BadParameter("shrink and grow come together: one undoes the other")
    return wanted


def _measure(name: str, model: str, events: list[str], repeat: int, repeat_slow: int) -> Iterator[dict[str, Any]]:
    """Rows of one peer and model, from one training that goes through all events over and over."""
    found: dict[str, list[Change]] = {event: [] for event in EVENTS}
    trouble: Exception | None = None
    try:
        with PEERS[name](model) as peer:
            peer.settle()
            for number in range(repeat):
                for event in EVENTS:  # a shrink and a grow follow each other
                    slow = name != "in_place" and (event == "freeze" or model != next(iter(MODELS)))
                    if event in events and number < (repeat_slow if slow else repeat):
                        found[event].append(getattr(peer, event)())
    except Exception as error:
        trouble = error  # once the rows of what came before are out
    for event, changes in found.items():
        if changes:
            row = _row(name, parameters(model), event, changes)
            say(row)
            yield row
    if trouble is not None:
        raise trouble


def _row(peer: str, params: int, event: str, changes: list[Change]) -> dict[str, Any]:
    decided = [change.decide_s for change in changes if change.decide_s is not None]
    return {
        "peer": peer,
        "params": params,
        "event": event,
        "repeats": len(changes),
        "pause_s": spread([change.pause_s for change in changes]),
        "decide_s": round(statistics.median(decided), 4) if decided else None,
        "steps_lost": sum(change.steps_lost for change in changes),
        "state_bytes": 4 * STATE_TENSORS * params,
    }


if __name__ == "__main__":
    typer.run(main)
