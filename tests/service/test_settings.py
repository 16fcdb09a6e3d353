"""Settings: where things lie by default, and what is refused because nothing protects it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service.__main__ import app
from service.settings import Settings


def test_everything_lies_in_the_data_folder(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/emascale.db"
    assert settings.storage_url == f"{tmp_path}/jobs"


def test_folders_do_not_depend_on_where_a_process_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_folder=Path("data"), storage_url="jobs")
    assert (settings.data_folder, settings.storage_url) == (tmp_path / "data", str(tmp_path / "jobs"))
    assert Settings(storage_url="s3://bucket/jobs").storage_url == "s3://bucket/jobs"


def test_the_environment_sets_what_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASCALE_PORT", "9000")
    monkeypatch.setenv("EMASCALE_DATA_FOLDER", str(tmp_path))
    assert (Settings().port, Settings().data_folder, Settings(port=1).port) == (9000, tmp_path, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine_may_be_listened_on(host: str) -> None:
    assert Settings(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "10.0.0.1", "example.org", "", "localhost.example"])
def test_others_may_not_since_there_is_no_authentication(host: str) -> None:
    with pytest.raises(ValidationError, match="no authentication"):
        Settings(host=host)


@pytest.mark.parametrize("url", ["s3://bucket/jobs[1]", "s3://bucket/*", "s3://bucket/jobs?versionId=1"])
def test_a_storage_that_would_be_taken_for_a_pattern_is_refused(url: str) -> None:
    refused = CliRunner().invoke(app, ["serve", "--storage", url])
    assert refused.exit_code == 2
    assert "storage_url" in refused.output
    assert "for a pattern" in refused.output


def test_a_local_folder_may_be_called_anything(tmp_path: Path) -> None:
    assert Settings(storage_url=f"{tmp_path}/jobs[1]?").storage_url == f"{tmp_path}/jobs[1]?"


@pytest.mark.parametrize(
    ("url", "code", "why"),
    [
        ("mysql://h/n", 2, "database_url: Value error, must begin with sqlite:/// or postgresql://"),
        ("postgresql://me:secret@127.0.0.1:1/jobs", 1, "database_url: postgresql+psycopg://me:***@127.0.0.1:1/jobs"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(url: str, code: int, why: str) -> None:
    refused = CliRunner().invoke(app, ["migrate"], env={"EMASCALE_DATABASE_URL": url})
    assert refused.exit_code == code
    assert why in refused.output
    assert "secret" not in refused.output
