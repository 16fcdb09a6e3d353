"""The client and the service, with a real connection between them; the job's controller is played."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from api_schemas.board import Board
from api_schemas.cli import app as command
from api_schemas.client import Client
from api_schemas.errors import Conflict, InvalidRequest, NotFound, ServiceUnreachable
from api_schemas.jobs import JobSpec
from api_schemas.views import JobView, Phase
from service.app import create_app
from service.db import Database
from service.settings import Settings
from tests.databases import fresh_database
from tests.service.world import Controller, committed, finished, metrics, resized, spec, started
from tests.serving import served

PATIENCE_S = 30


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_folder=tmp_path, event_poll_s=0.02, log_poll_s=0.02)


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    with fresh_database(settings.database_url) as database:
        yield database


@pytest.fixture
def client(settings: Settings, database: Database) -> Iterator[Client]:
    with served(create_app(settings, database)) as address, Client(address) as client:
        yield client


@pytest.fixture
def job(client: Client) -> JobView:
    return client.submit(spec())


def train(database: Database, job: str) -> Controller:
    """The job runs, and has seen 2000 of 5000 samples."""
    controller = Controller.launch(database, job)
    controller.report(started(), committed(0, 2000), metrics((1000, {"loss": 2.0}), (2000, {"loss": 1.0, "lr": 0.05})))
    return controller


def test_a_job_from_submission_to_deletion(client: Client, database: Database, job: JobView) -> None:
    controller = train(database, job.id)
    assert client.job(job.id).values["lr"] == 0.05
    assert client.resize(job.id, 3).target_workers == 3
    assert client.resize(job.id, 4, at_samples=3000).pending_resizes[0].at_samples == 3000
    controller.report(resized(2000, (2, 3)), committed(2000, 5000), finished("succeeded"))

    view = client.wait(job.id, timeout_s=PATIENCE_S, every_s=0.01)

    assert view.status.phase is Phase.SUCCEEDED
    assert [row.workers for row in client.resizes(job.id).items] == [(2, 3)]
    assert client.metrics(job.id, ["loss"]).series == {"loss": [(1000, 2.0), (2000, 1.0)]}
    assert client.ledger(job.id).samples_lost == 0
    with pytest.raises(Conflict):
        client.resize(job.id, 2)
    client.delete(job.id)
    with pytest.raises(NotFound):
        client.job(job.id)


def test_the_view_is_kept_until_it_changes(client: Client, database: Database, job: JobView) -> None:
    first = client.job(job.id)
    assert client.job(job.id) is first
    train(database, job.id)
    assert client.job(job.id).workers == 2


def test_the_same_key_is_the_same_job(client: Client) -> None:
    assert client.submit(spec(), idempotency_key="k").id == client.submit(spec(), idempotency_key="k").id
    with pytest.raises(Conflict):
        client.submit(spec(name="other"), idempotency_key="k")


def test_previews(client: Client, database: Database, job: JobView) -> None:
    sizes = client.preview_submit(JobSpec.model_validate(spec())).sizes
    assert [size.workers for size in sizes] == [1, 2, 3, 4]
    train(database, job.id)
    assert client.preview_resize(job.id, 4).workers == (2, 4)
    rows = client.scaling_preview({"optimizer": {"name": "sgd", "lr": 0.1}, "ema": 0.99, "kappas": [1, 2]}).items
    assert [row.values["ema_momentum"] for row in rows] == pytest.approx([0.99, 0.9801])


def test_lists_in_pages_and_by_prefix(client: Client) -> None:
    ids = [client.submit(spec(name=f"job {n}", labels={"n": str(n % 2)})).id for n in range(5)]

    assert [row.id for row in client.iter_jobs(limit=2)] == ids[::-1]
    assert [row.id for row in client.iter_jobs(label=["n=1"])] == [ids[3], ids[1]]
    assert [row.id for row in client.iter_jobs(status=[Phase.RUNNING])] == []
    assert client.resolve(ids[2][:-1]) == ids[2]
    with pytest.raises(InvalidRequest, match="5 jobs"):
        client.resolve(ids[2][:4])


def test_a_change_while_it_lives(client: Client, job: JobView) -> None:
    assert client.patch(job.id, {"priority": 5}).spec.priority == 5
    with pytest.raises(InvalidRequest) as caught:
        client.patch(job.id, {"seed": 1})
    assert [error.pointer for error in caught.value.errors] == ["/seed"]


def test_history_in_pages(client: Client, database: Database, job: JobView) -> None:
    train(database, job.id)
    whole = client.events(job.id)
    pages = [client.events(job.id, limit=2)]
    while pages[-1].next:
        pages.append(client.events(job.id, after=pages[-1].next, limit=2))

    assert [event for page in pages for event in page.items] == whole.items
    assert client.events(job.id, after=whole.last).items == []
    assert all(one.at <= other.at for one, other in pairwise(whole.items))


def test_watch_hears_what_happens_later(client: Client, database: Database, job: JobView) -> None:
    stream = client.watch(job.id)
    assert next(stream).type == "submitted"
    train(database, job.id).report(finished("failed"))
    heard = list(stream)

    assert heard == client.events(job.id).items[1:]
    assert heard[-1].type == "phase"


def test_watch_survives_a_restart_of_the_service(settings: Settings, database: Database) -> None:
    app = create_app(settings, database)
    with ExitStack() as stack:
        with served(app) as address:
            client = stack.enter_context(Client(address, waits=(0.05,) * 100))
            job = client.submit(spec()).id
            stream = client.watch(job)
            heard = [next(stream)]
        train(database, job).report(finished("succeeded"))
        stack.enter_context(served(app, int(address.rpartition(":")[2])))
        heard += stream
        assert heard == client.events(job).items


def test_the_board_shows_a_job_to_its_end(client: Client, database: Database, job: JobView) -> None:
    output = StringIO()
    with Board(client, Console(file=output, width=200)) as board:
        board.add(job)
        (queued,) = board.refresh()
        controller = train(database, job.id)
        (running,) = board.refresh()
        controller.report(finished("succeeded"))
        board.watch()
    lines = output.getvalue().splitlines()

    assert (queued.status.phase, running.status.phase) == (Phase.QUEUED, Phase.RUNNING)
    assert "submitted" in lines[0]
    assert any("40%, loss 1, kappa 2, lr 0.05, 2 workers" in line for line in lines)
    assert "succeeded" in lines[-1]


def test_logs_checkpoints_and_artifacts(client: Client, database: Database, job: JobView, tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / job.id
    for path, text in {"logs/w0/1.log": "01 one\n02 two\n", "artifacts/ema.safetensors": "weights"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)

    assert list(client.logs(job.id)) == ["[w0] 01 one", "[w0] 02 two"]
    assert list(client.logs(job.id, rank=0, tail=1)) == ["02 two"]
    assert [(found.name, found.bytes) for found in client.artifacts(job.id).items] == [("ema.safetensors", 7)]
    assert client.checkpoints(job.id).items == []
    assert client.download(job.id, "ema.safetensors", tmp_path / "here").read_text() == "weights"
    following = client.logs(job.id, follow=True)
    assert next(following) == "[w0] 01 one"
    Controller.launch(database, job.id).report(finished("succeeded"))
    assert list(following) == ["[w0] 02 two"]


def test_the_surroundings(client: Client) -> None:
    assert client.health("healthz").status == "ok"
    assert client.health().status == "degraded"
    assert client.cluster().connected is False
    assert client.recipes().items == []


def test_every_wrong_field_has_its_line_on_the_command_line(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("{name: a, recipe: {name: x}, optimizer: {name: sgd, lr: -1}, batch: {base: 0}, nonsense: 1}")

    result = CliRunner().invoke(command, ["submit", str(file)], obj=lambda _: client)

    assert result.exit_code == 2
    fields = [line.partition(":")[0] for line in result.stderr.splitlines()]
    assert sorted(fields) == ["batch.base", "batch.per_worker", "nonsense", "optimizer.lr", "schedule"]


def test_a_service_that_went_away(settings: Settings, database: Database) -> None:
    with ExitStack() as stack:
        with served(create_app(settings, database)) as address:
            client = stack.enter_context(Client(address, waits=()))
            client.jobs()
        with pytest.raises(ServiceUnreachable, match=address):
            client.jobs()
