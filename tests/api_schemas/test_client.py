from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api_schemas import Client
from api_schemas.errors import (
    PROBLEM_MEDIA_TYPE,
    Conflict,
    EmascaleError,
    FieldError,
    InternalError,
    InvalidRequest,
    NotFound,
    ServiceUnreachable,
    Unauthorized,
    Unavailable,
)
from api_schemas.events import Event
from api_schemas.jobs import ElasticityPatch, JobPatch, JobSpec
from api_schemas.previews import JobPreview
from api_schemas.stream import lines
from api_schemas.tokens import NewToken, Scope, Token, TokenRequest
from api_schemas.views import Ledger, Page, Phase
from tests.api_schemas.answers import NOW, SPEC, Answers, job_row, job_view, resize_preview, sse, story


@pytest.fixture
def service() -> Answers:
    return Answers()


def asked(service: Answers) -> dict[str, str]:
    return dict(service.last.url.params)


@pytest.mark.parametrize("spec", [SPEC, JobSpec.model_validate(SPEC)], ids=["dict", "model"])
def test_submit_sends_the_spec_and_its_key(service: Answers, spec: Any) -> None:
    service.add("POST", "/v1/jobs", job_view(), status=201)

    view = service.client().submit(spec, idempotency_key="once")

    assert view == job_view()
    assert service.last.headers["Idempotency-Key"] == "once"
    assert JobSpec.model_validate(service.body()) == JobSpec.model_validate(SPEC)


def test_preview_submit_is_a_dry_run(service: Answers) -> None:
    service.add("POST", "/v1/jobs", JobPreview(spec=SPEC, sizes=[]))

    assert service.client().preview_submit(SPEC).spec.name == "digits"
    assert asked(service) == {"dry_run": "true"}


def test_a_patch_names_only_what_it_changes(service: Answers) -> None:
    service.add("PATCH", "/v1/jobs/1k114apr40046ss7", job_view())

    service.client().patch("1k114apr40046ss7", JobPatch(elasticity=ElasticityPatch(workers=(1, 2))))

    assert service.body() == {"elasticity": {"workers": [1, 2]}}


def test_resize_and_its_preview(service: Answers) -> None:
    service.add("POST", "/v1/jobs/1k114apr40046ss7/resize", job_view(target_workers=2), resize_preview())
    client = service.client()

    assert client.resize("1k114apr40046ss7", 2, at_samples=5000).target_workers == 2
    assert service.body() == {"workers": 2, "at_samples": 5000}
    assert asked(service) == {}
    assert client.preview_resize("1k114apr40046ss7", 2) == resize_preview()
    assert asked(service) == {"dry_run": "true"}
    assert client.preview_resize("1k114apr40046ss7", None) == resize_preview()
    assert service.body() == {"workers": None, "at_samples": None}


def test_all_jobs_are_read_page_by_page(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page(items=[job_row("a"), job_row("b")], next="cursor"), Page(items=[job_row("c")]))

    assert [row.id for row in service.client().iter_jobs(status=[Phase.RUNNING], limit=2)] == ["a", "b", "c"]
    assert asked(service) == {"status": "running", "limit": "2", "after": "cursor"}


def test_an_unchanged_job_is_not_sent_again(service: Answers) -> None:
    changed = job_view(workers=3)
    service.add(
        "GET",
        "/v1/jobs/1k114apr40046ss7",
        httpx.Response(200, text=job_view().model_dump_json(), headers={"ETag": '"1"'}),
        httpx.Response(304),
        httpx.Response(200, text=changed.model_dump_json(), headers={"ETag": '"2"'}),
        httpx.Response(304),
    )
    client = service.client()

    assert [client.job("1k114apr40046ss7").workers for _ in range(4)] == [2, 2, 3, 3]
    assert [request.headers.get("If-None-Match") for request in service.requests] == [None, '"1"', '"1"', '"2"']


def test_etags_of_two_jobs_do_not_mix(service: Answers) -> None:
    for job in ("a", "b"):
        body = job_view(job).model_dump_json()
        service.add(
            "GET", f"/v1/jobs/{job}", httpx.Response(200, text=body, headers={"ETag": '"1"'}), httpx.Response(304)
        )
    client = service.client()

    assert [client.job(job).id for job in ("a", "b", "a", "b")] == ["a", "b", "a", "b"]


def test_a_name_will_do_where_one_job_has_it(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page(items=[job_row("a1", "other"), job_row("b2"), job_row("c3")]))

    assert service.client().resolve("other") == "a1"
    assert [str(request.url.query, "ascii") for request in service.requests] == ["limit=200&name=other"]
    with pytest.raises(InvalidRequest, match=r"2 jobs are named 'digits'.*: c3 \(digits\), b2 \(digits\)"):
        service.client().resolve("digits")


def test_a_whole_id_is_asked_for_as_one(service: Answers) -> None:
    job = "1k114apr40046ss7"
    service.add("GET", f"/v1/jobs/{job}", job_view(), NotFound())
    service.add("GET", "/v1/jobs", Page(items=[job_row("b2", job)]))
    client = service.client()

    assert client.resolve(job) == job
    assert len(service.requests) == 1
    assert client.resolve(job) == "b2", "there is no such id, but a name"


def test_a_prefix_names_one_job(service: Answers) -> None:
    service.add("GET", "/v1/jobs", Page(items=[job_row("abd456"), job_row("abc123")]))
    client = service.client()

    assert client.resolve("abd") == "abd456"
    assert service.last.url.params["after"] == "abe0000000000000"
    with pytest.raises(InvalidRequest, match=r"abd456 \(digits\), abc123 \(digits\)"):
        client.resolve("ab")
    with pytest.raises(NotFound, match="No job is named 'x', or has an id that starts so"):
        client.resolve("x")


@pytest.mark.parametrize(
    "raised",
    [
        Conflict("It has ended.", request_id="r1"),
        NotFound(),
        Unavailable("No cluster."),
        InvalidRequest(
            "Two fields are wrong.", errors=[FieldError(pointer="/batch/base", message="must be 1 or more")]
        ),
    ],
    ids=lambda error: error.code,
)
def test_the_server_s_exception_is_raised_again(service: Answers, raised: EmascaleError) -> None:
    service.add("POST", "/v1/jobs/1k114apr40046ss7/cancel", raised)

    with pytest.raises(type(raised)) as caught:
        service.client().cancel("1k114apr40046ss7")

    assert type(caught.value) is type(raised)
    assert caught.value.problem("") == raised.problem("")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (502, InternalError), (500, InternalError), (405, InvalidRequest)]
)
def test_an_answer_of_something_else_is_an_error_too(service: Answers, status: int, kind: type[EmascaleError]) -> None:
    service.add("GET", "/v1/cluster", httpx.Response(status, text="<html>"))

    with pytest.raises(kind, match=f"http://service/v1/cluster answered {status}") as caught:
        service.client().cluster()
    assert type(caught.value) is kind


def test_a_success_that_is_no_model_is_an_error(service: Answers) -> None:
    service.add("GET", "/v1/cluster", httpx.Response(200, text="<html>"))

    with pytest.raises(InternalError, match="address of an emascale service"):
        service.client().cluster()


@pytest.mark.parametrize(
    ("status", "kappa", "said"),
    [
        ({"phase": "asleep"}, 1.0, r"with a field status.phase that this client does not know \('asleep'\)"),
        ({"code": ...}, 1.0, "without the field status.code, which this client needs"),
        ({}, "large", r"with a field kappa that this client does not know \('large'\)"),
    ],
)
def test_an_answer_of_a_newer_service_names_the_field(
    service: Answers, status: dict[str, Any], kappa: Any, said: str
) -> None:
    view = job_view().model_dump(mode="json") | {"kappa": kappa}
    view["status"] = {name: value for name, value in (view["status"] | status).items() if value is not ...}
    service.add("GET", "/v1/jobs/1k114apr40046ss7", httpx.Response(200, json=view))

    older = "it may be older than the service at http://service."
    with pytest.raises(InternalError, match=f"^GET /v1/jobs/1k114apr40046ss7 answered {said}: {older}$"):
        service.client().job("1k114apr40046ss7")


def test_a_kind_of_event_that_a_newer_service_knows_is_named(service: Answers) -> None:
    event = {"job": "1k114apr40046ss7", "type": "promoted"}
    service.add("GET", "/v1/jobs/1k114apr40046ss7/events", httpx.Response(200, json={"items": [event]}))

    with pytest.raises(InternalError, match=r"with a field items.0.type that this client does not know \('promoted'\)"):
        service.client().events("1k114apr40046ss7")


def test_a_get_is_repeated_while_there_is_no_connection(service: Answers) -> None:
    down = httpx.ConnectError("refused")
    waited: list[float] = []
    service.add(
        "GET", "/v1/jobs/1k114apr40046ss7/ledger", down, down, Ledger(epochs=[], samples_lost=0, samples_repeated=0)
    )

    ledger = service.client(sleep=waited.append, waits=(1.0, 2.0, 3.0)).ledger("1k114apr40046ss7")

    assert ledger.samples_lost == 0
    assert waited == [1.0, 2.0]


@pytest.mark.parametrize(("method", "times"), [("GET", 4), ("POST", 1)])
def test_repetition_has_an_end_and_writes_are_sent_once(service: Answers, method: str, times: int) -> None:
    service.add(method, "/v1/jobs", httpx.ConnectError("refused"))
    client = service.client()

    with pytest.raises(ServiceUnreachable, match=r"http://service \(refused\).*run serve"):
        client.jobs() if method == "GET" else client.submit(SPEC)

    assert len(service.requests) == times


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", waits=()) as client, pytest.raises(ServiceUnreachable, match=str(port)):
        client.cluster()


def test_the_address_comes_from_the_environment(service: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASCALE_URL", "http://elsewhere:1234/")
    service.add("DELETE", "/v1/jobs/1k114apr40046ss7", httpx.Response(204))

    service.client(None).delete("1k114apr40046ss7")  # type: ignore[arg-type]

    assert str(service.last.url) == "http://elsewhere:1234/v1/jobs/1k114apr40046ss7"


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://service", "http://", "http://x:port", ""])
def test_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASCALE_URL", "nonsense")
    with pytest.raises(InvalidRequest, match="http://host:port"):
        Client(address)


def test_the_token_is_sent(service: Answers) -> None:
    service.add("DELETE", "/v1/jobs/1k114apr40046ss7", httpx.Response(204))

    service.client(token="secret").delete("1k114apr40046ss7")

    assert service.last.headers["Authorization"] == "Bearer secret"


def refusal() -> httpx.Response:
    problem = Unauthorized().problem("Unauthorized").model_dump_json()
    return httpx.Response(401, content=problem, headers={"Content-Type": PROBLEM_MEDIA_TYPE})


def test_the_token_comes_from_the_environment(service: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASCALE_TOKEN", "ema_1_secret\n")
    service.add("DELETE", "/v1/jobs/1k114apr40046ss7", httpx.Response(204))

    service.client().delete("1k114apr40046ss7")
    assert service.last.headers["Authorization"] == "Bearer ema_1_secret"
    service.client(token="ema_2_other").delete("1k114apr40046ss7")
    assert service.last.headers["Authorization"] == "Bearer ema_2_other"


@pytest.mark.parametrize(("token", "said"), [(None, "set EMASCALE_TOKEN"), ("ema_1_secret", "expired or been revoked")])
def test_without_a_valid_token_it_says_what_to_do(service: Answers, token: str | None, said: str) -> None:
    service.add("GET", "/v1/cluster", refusal())

    with pytest.raises(Unauthorized, match=said) as refused:
        service.client(token=token).cluster()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("token", ["ema_1_sec ret", "ema_1_sec\nret", "ema_1_secret\u00e9"])
def test_a_token_that_cannot_be_sent_is_not_shown(token: str) -> None:
    with pytest.raises(InvalidRequest, match="must read ema_") as refused:
        Client(token=token)
    assert "ret" not in refused.value.detail


def test_tokens_are_made_and_revoked(service: Answers) -> None:
    shown = Token(id="t1", name="ci", scope=Scope.READ, created_at=NOW, expires_at=None, revoked_at=None)
    service.add("POST", "/v1/tokens", NewToken(**shown.model_dump(), secret="ema_t1_0"), status=201)
    service.add("GET", "/v1/tokens", Page(items=[shown]))
    service.add("DELETE", "/v1/tokens/t1", shown)
    client = service.client()

    assert client.create_token(TokenRequest(name="ci", scope=Scope.READ)).secret == "ema_t1_0"
    assert service.body() == {"name": "ci", "scope": "read"}
    client.create_token({"name": "ci", "scope": "read", "expires": "90d"})
    assert service.body()["expires"] == "90d"
    assert client.tokens(limit=5).items == [shown]
    assert client.revoke_token("t1") == shown


def stream(*parts: str, breaks: bool = False) -> httpx.Response:
    def content() -> Iterator[bytes]:
        for part in parts:
            yield part.encode()
        if breaks:
            raise httpx.ReadError("connection reset")

    return httpx.Response(200, content=content(), headers={"Content-Type": "text/event-stream"})


EVENTS = "/v1/jobs/1k114apr40046ss7/events"


def watched(service: Answers, **options: Any) -> list[Event]:
    return list(service.client(**options).watch("1k114apr40046ss7"))


def test_a_stream_is_heard_to_its_end(service: Answers) -> None:
    service.add("SSE", EVENTS, stream(sse(*story())))

    assert watched(service) == story()
    assert service.last.headers["Accept"] == "text/event-stream"
    assert "Last-Event-ID" not in service.last.headers


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_stream_may_arrive_in_any_pieces(service: Answers, size: int) -> None:
    text = sse(*story()).replace("\n", "\r\n")
    service.add("SSE", EVENTS, stream(*(text[i : i + size] for i in range(0, len(text), size))))

    assert watched(service) == story()


@pytest.mark.parametrize("breaks", [True, False], ids=["reset", "closed"])
def test_a_broken_stream_is_taken_up_after_the_last_event_heard(service: Answers, breaks: bool) -> None:
    told = story()
    half = sse(*told[:4]) + "id: 5\ndata: {"
    service.add(
        "SSE", EVENTS, stream(half, breaks=breaks), httpx.ConnectError("refused"), stream(sse(*told[4:], start=5))
    )

    assert watched(service) == told
    assert [request.headers.get("Last-Event-ID") for request in service.requests] == [None, "4", "4"]


def test_a_stream_that_stays_away_is_given_up(service: Answers) -> None:
    down = httpx.ConnectError("refused")
    service.add("SSE", EVENTS, stream(sse(*story()[:2])), down)
    heard = []

    with pytest.raises(ServiceUnreachable):
        heard.extend(service.client(waits=(0.0, 0.0)).watch("1k114apr40046ss7"))

    assert len(service.requests) == 1 + 3


def test_watching_a_job_that_has_ended_and_said_everything_ends(service: Answers) -> None:
    service.add("SSE", EVENTS, stream(": nothing\n\n"))
    service.add("GET", "/v1/jobs/1k114apr40046ss7", job_view(phase=Phase.CANCELLED))

    assert list(service.client().watch("1k114apr40046ss7", after="10")) == []
    assert service.requests[0].headers["Last-Event-ID"] == "10"


def test_an_error_instead_of_a_stream(service: Answers) -> None:
    service.add("SSE", EVENTS, NotFound("There is no job 1k114apr40046ss7."))

    with pytest.raises(NotFound, match="no job 1k114apr40046ss7"):
        watched(service)


def test_an_event_of_a_newer_service(service: Answers) -> None:
    service.add("SSE", EVENTS, stream('id: 1\ndata: {"type": "from_the_future"}\n\n'))

    with pytest.raises(
        InternalError, match=r"an event with a field type that this client does not know \('from_the_future'\)"
    ):
        watched(service)


def test_lines_end_with_line_feeds_alone() -> None:
    assert list(lines(["a\x0b", "b\u2028c\r", "\nd\n", "e"])) == ["a\x0bb\u2028c", "d", "e"]


def test_logs_are_lines(service: Answers) -> None:
    service.add("GET", LOGS, stream("one\ntwo\n"))

    assert list(service.client().logs("1k114apr40046ss7", rank=0, tail=5)) == ["one", "two"]
    assert asked(service) == {"rank": "0", "tail": "5"}


LOGS = "/v1/jobs/1k114apr40046ss7/logs"
NOTHING = httpx.Response(200, text=": nothing\n\n")


def logged(place: str, *lines: str) -> str:
    return f"data: {json.dumps({'lines': lines})}\nid: {place}\n\n"


@pytest.fixture
def over(service: Answers) -> Answers:
    """The job is over."""
    service.add("GET", "/v1/jobs/1k114apr40046ss7", job_view(phase=Phase.SUCCEEDED))
    return service


@pytest.mark.parametrize("breaks", [True, False], ids=["reset", "closed"])
def test_a_followed_log_goes_on_with_the_next_line(over: Answers, breaks: bool) -> None:
    half = logged("w0/0:4", "one", "two\r") + "data: {"
    over.add("SSE", LOGS, stream(logged("-"), half, breaks=breaks), stream(logged("w0/0:9", "three")), NOTHING)

    told = over.client().logs("1k114apr40046ss7", rank="w0", tail=5, follow=True)

    assert list(told) == ["one", "two\r", "three"]
    streams = [request for request in over.requests if request.url.path == LOGS]
    assert [request.headers.get("Last-Event-ID") for request in streams] == [None, "w0/0:4", "w0/0:9"]
    assert all(dict(request.url.params) == {"rank": "w0", "tail": "5"} for request in streams)


@pytest.mark.parametrize("down", [httpx.ConnectError("refused"), Unavailable("The database does not answer.")])
def test_who_waits_for_the_service_is_told_once_in_an_outage(over: Answers, down: Any) -> None:
    outage = [down] * 9
    over.add("SSE", LOGS, stream(logged("a", "one"), breaks=True), *outage, stream(logged("b", "two"), breaks=True))
    over.add("SSE", LOGS, stream(logged("c", "three"), breaks=True), *outage, NOTHING)
    told: list[str] = []

    lines = over.client().logs("1k114apr40046ss7", follow=True, waits=lambda error: told.append(error.detail))

    assert list(lines) == ["one", "two", "three"]
    assert ["No answer from http://service" in text or text == "The database does not answer." for text in told] == [
        True,
        True,
    ]


def test_a_log_whose_service_stays_away_is_given_up(over: Answers) -> None:
    over.add("SSE", LOGS, stream(logged("a", "one"), breaks=True), httpx.ConnectError("refused"))
    heard: list[str] = []

    with pytest.raises(ServiceUnreachable):
        heard.extend(over.client().logs("1k114apr40046ss7", follow=True))
    assert heard == ["one"]
    assert len(over.requests) == 1 + 3


def test_a_stream_that_breaks_off_often_and_is_silent_goes_on(over: Answers) -> None:
    over.add("SSE", LOGS, *(stream(": ping\n\n", breaks=True) for _ in range(9)), NOTHING)

    assert list(over.client().logs("1k114apr40046ss7", follow=True)) == []


def test_a_log_of_a_newer_service(service: Answers) -> None:
    service.add("SSE", LOGS, stream('id: 1\ndata: {"pages": []}\n\n'))

    with pytest.raises(InternalError, match="log lines that this client cannot read"):
        list(service.client().logs("1k114apr40046ss7", follow=True))


def test_metrics_name_their_curves_and_range(service: Answers) -> None:
    service.add(
        "GET",
        "/v1/jobs/1k114apr40046ss7/metrics",
        httpx.Response(200, text='{"series": {"loss": [[5, 1.5], [6, null]]}}'),
    )

    assert service.client().metrics("1k114apr40046ss7", ["loss", "lr"], start=5, points=10).series == {
        "loss": [(5, 1.5), (6, None)]
    }
    assert service.last.url.params.multi_items() == [("name", "loss"), ("name", "lr"), ("from", "5"), ("points", "10")]


def test_a_download_appears_once_it_is_whole(service: Answers, tmp_path: Path) -> None:
    path = "/v1/jobs/1k114apr40046ss7/artifacts/ema.safetensors"
    service.add("GET", path, stream("half", breaks=True), stream("whole"))
    client, target = service.client(), tmp_path / "ema.safetensors"

    with pytest.raises(ServiceUnreachable):
        client.download("1k114apr40046ss7", "ema.safetensors", target)
    assert not target.exists()
    assert client.download("1k114apr40046ss7", "ema.safetensors", target).read_text() == "whole"


def test_an_id_cannot_leave_its_place_in_the_path(service: Answers) -> None:
    service.add("GET", "/v1/jobs/../cluster", NotFound())

    with pytest.raises(NotFound):
        service.client().job("../cluster")
    assert service.last.url.raw_path == b"/v1/jobs/..%2Fcluster"


def test_wait_returns_the_ended_job(service: Answers) -> None:
    waited: list[float] = []
    service.add("GET", "/v1/jobs/1k114apr40046ss7", job_view(), job_view(), job_view(phase=Phase.SUCCEEDED))

    assert service.client(sleep=waited.append).wait("1k114apr40046ss7", every_s=0.5).status.is_terminal
    assert waited == [0.5, 0.5]


def test_wait_has_a_deadline(service: Answers) -> None:
    times = iter(range(100))
    service.add("GET", "/v1/jobs/1k114apr40046ss7", job_view())

    with pytest.raises(TimeoutError, match="still running after 3 s"):
        service.client(clock=lambda: float(next(times))).wait("1k114apr40046ss7", timeout_s=3)


def test_the_bodies_are_json(service: Answers) -> None:
    service.add("POST", "/v1/scaling/preview", httpx.Response(200, text=json.dumps({"items": []})))

    service.client().scaling_preview({"optimizer": {"name": "sgd", "lr": 1}, "kappas": [1, 2]})

    assert service.last.headers["Content-Type"] == "application/json"
    assert service.body()["kappas"] == [1, 2]
