"""What happened to a job, on the command line: its log, events, curves, resizes and ledger."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_schemas.errors import FieldError, InvalidRequest
from api_schemas.records import rows
from api_schemas.views import Curves, Ledger, LedgerEpoch, Page, Phase, Point
from tests.api_schemas.answers import Answers, history, job_view, resize_row, story
from tests.api_schemas.commands import JOB, emascale


def test_resizes_are_all_shown_page_by_page(service: Answers) -> None:
    pages = [Page(items=[resize_row(id=1)], next="1"), Page(items=[resize_row(id=2, workers=(2, 3))])]
    service.add("GET", f"{JOB}/resizes", *pages)

    shown = emascale(service, "resizes", "1k114apr40046ss7").stdout

    assert service.last.url.params["after"] == "1"
    assert [line.split()[2:5] for line in shown.splitlines()[2:]] == [["4", "->", "2"], ["2", "->", "3"]]


def test_an_empty_log_says_so_beside_the_output(service: Answers) -> None:
    service.add("GET", f"{JOB}/logs", httpx.Response(200, text=""))

    result = emascale(service, "logs", "1k114apr40046ss7")

    assert result.stdout == ""
    assert "no such line yet" in result.stderr


def test_logs_are_printed_as_they_are(service: Answers) -> None:
    service.add("GET", f"{JOB}/logs", httpx.Response(200, text="[rank 0] one\ntwo"))

    assert emascale(service, "logs", "1k114apr40046ss7", "--rank", "0", "--tail", "2").stdout == "[rank 0] one\ntwo\n"
    assert dict(service.last.url.params) == {"rank": "0", "tail": "2"}
    assert emascale(service, "logs", "1k114apr40046ss7", "--json").stdout == '"[rank 0] one"\n"two"\n'


def test_a_followed_log_waits_for_the_service_and_says_so_once() -> None:
    gone = Answers()
    gone.add("GET", JOB, job_view(phase=Phase.SUCCEEDED))
    texts = [f'id: {n}\ndata: {{"lines": ["line {n}"]}}\n\n' for n in (1, 2)]
    down = [httpx.ConnectError("refused")] * 9
    gone.add("SSE", f"{JOB}/logs", httpx.Response(200, text=texts[0]), *down, httpx.Response(200, text=texts[1]))
    gone.add("SSE", f"{JOB}/logs", httpx.Response(200, text=""))

    result = emascale(gone, "logs", "1k114apr40046ss7", "--follow")

    assert (result.exit_code, result.stdout) == (0, "line 1\nline 2\n")
    (said,) = result.stderr.splitlines()
    assert said.startswith("No answer from http://service (refused).")
    assert said.endswith("The log goes on once it answers; Ctrl-C does not wait for that.")


@pytest.mark.parametrize(
    "command", [("logs", "1k114apr40046ss7"), ("metrics", "1k114apr40046ss7"), ("metrics", "1k114apr40046ss7", "loss")]
)
@pytest.mark.parametrize(("phase", "reason"), [(Phase.RUNNING, "yet"), (Phase.FAILED, "It left no ")])
def test_of_a_job_that_ended_nothing_more_is_promised(command: tuple[str, ...], phase: Phase, reason: str) -> None:
    service = Answers()
    service.add("GET", JOB, job_view(phase=phase))
    service.add("GET", f"{JOB}/logs", httpx.Response(200, text=""))
    service.add("GET", f"{JOB}/metrics", Curves(series={name: [] for name in command[2:]}))

    result = emascale(service, *command)

    assert (result.exit_code, result.stdout) == (0, "")
    assert reason in result.stderr
    assert ("yet" in result.stderr) == (phase is Phase.RUNNING)


def test_the_newest_events_are_shown_the_last_below(service: Answers) -> None:
    told = story()
    service.add("GET", f"{JOB}/events", history(told[-1], told[5], told[1], more=True))

    shown = emascale(
        service, "events", "1k114apr40046ss7", "--type", "phase", "--type", "resized", "--limit", "3"
    ).stdout

    asked = [("limit", "3"), ("newest_first", "true"), ("type", "phase"), ("type", "resized")]
    assert sorted(service.last.url.params.multi_items()) == asked
    _, _, first, second, third, below = shown.splitlines()
    assert first.split() == ["2026-01-02", "03:04:05", "phase", "starting:", "Workers", "start."]
    assert "4 -> 2 workers" in second
    assert third.endswith("succeeded: Trained.")
    assert below == "There are older ones: --before 3 shows them."
    emascale(service, "events", "1k114apr40046ss7", "--before", "3")
    assert service.last.url.params["after"] == "3"


def test_no_event_is_said(service: Answers) -> None:
    service.add("GET", f"{JOB}/events", history())
    assert emascale(service, "events", "1k114apr40046ss7").stdout == "No event is like that.\n"


def test_a_type_of_event_that_there_is_not_is_named(service: Answers) -> None:
    wrong = FieldError(pointer="?type", message="must be submitted or phase")
    service.add("GET", f"{JOB}/events", InvalidRequest(errors=[wrong]))

    result = emascale(service, "events", "1k114apr40046ss7", "--type", "x")

    assert (result.exit_code, result.stderr) == (2, "type: must be submitted or phase\n")


@pytest.fixture
def curves() -> Curves:
    losses = [Point(n * 100, 8 / n) for n in range(1, 101)]
    return Curves(series={"loss": losses, "eval/accuracy": [Point(5000, 0.5), Point(10000, None)]})


def test_without_names_a_line_for_each_curve(service: Answers, curves: Curves) -> None:
    service.add("GET", f"{JOB}/metrics", curves)

    lines = [line.split() for line in emascale(service, "metrics", "1k114apr40046ss7").stdout.splitlines()]

    assert ["loss", "100", "to", "10000", "8", "0.08"] in lines
    assert ["eval/accuracy", "5000", "to", "10000", "0.5", "-"] in lines


def test_curves_by_name_stand_side_by_side(service: Answers, curves: Curves) -> None:
    service.add("GET", f"{JOB}/metrics", curves)
    asked = ("metrics", "1k114apr40046ss7", "loss", "eval/accuracy", "--points", "3", "--from", "100", "--to", "10000")

    shown = emascale(service, *asked).stdout

    assert service.last.url.params.get_list("name") == ["loss", "eval/accuracy"]
    assert (service.last.url.params["from"], service.last.url.params["to"]) == ("100", "10000")
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0] == ["samples", "loss", "eval/accuracy"]
    assert lines[2:] == [["100", "8", "-"], ["5100", "0.1569", "0.5"], ["10000", "0.08", "-"]]


def test_a_curve_that_there_is_not_is_named_beside_the_others(service: Answers, curves: Curves) -> None:
    service.add("GET", JOB, job_view(phase=Phase.FAILED))
    service.add("GET", f"{JOB}/metrics", Curves(series={"loss": curves.series["loss"], "los": []}))

    result = emascale(service, "metrics", "1k114apr40046ss7", "loss", "los")

    assert result.stderr == "It left no los.\n"
    assert "0.08" in result.stdout


def test_csv_goes_through_as_it_comes(service: Answers) -> None:
    text = 'name,samples,value\r\n"loss",100,2.5\r\n"loss",200,\r\n'
    service.add("GET", f"{JOB}/metrics", httpx.Response(200, text=text))

    shown = emascale(service, "metrics", "1k114apr40046ss7", "loss", "--csv").stdout

    assert service.last.headers["Accept"] == "text/csv"
    assert dict(service.last.url.params) == {"name": "loss"}
    assert shown == 'name,samples,value\n"loss",100,2.5\n"loss",200,\n'


def test_csv_and_json_exclude_each_other(service: Answers) -> None:
    assert emascale(service, "metrics", "1k114apr40046ss7", "--csv", "--json").exit_code == 2


series = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.dictionaries(st.integers(0, 50), st.floats(allow_nan=False) | st.none(), min_size=1).map(
        lambda points: [Point(samples, points[samples]) for samples in sorted(points)]
    ),
    min_size=1,
)


@given(series, st.integers(2, 60))
def test_rows_are_measured_samples_with_what_each_curve_said_last(drawn: dict[str, Any], most: int) -> None:
    measured = sorted({point.samples for points in drawn.values() for point in points})

    shown = rows(drawn, most)

    picked = [samples for samples, _ in shown]
    assert picked == sorted(set(picked))
    assert len(picked) == min(most, len(measured))
    assert set(picked) <= set(measured)
    assert {measured[0], measured[-1]} <= set(picked)
    for samples, values in shown:
        known = [[point.value for point in points if point.samples <= samples] for points in drawn.values()]
        assert values == [said[-1] if said else None for said in known]


def test_the_ledger_by_epochs(service: Answers) -> None:
    ranges = [[(0, 400, 1), (400, 1000, 2)], [(0, 1000, 2)], [(0, 1000, 2)], [(0, 1000, 2)], [(0, 1000, 3)]]
    epochs = [LedgerEpoch(epoch=epoch, samples=1000, ranges=each) for epoch, each in enumerate(ranges)]
    service.add("GET", f"{JOB}/ledger", Ledger(epochs=epochs, samples_lost=0, samples_repeated=0))

    lines = emascale(service, "ledger", "1k114apr40046ss7").stdout.splitlines()

    assert [line.split() for line in lines[2:5]] == [
        ["0", "1000", "2", "1,", "2"],
        ["1", "to", "3", "1000", "1", "2"],
        ["4", "1000", "1", "3"],
    ]
    assert lines[-1] == "0 samples lost, 0 repeated."
