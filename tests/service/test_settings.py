"""Settings: where things lie by default, and what is refused because nothing protects it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from service.__main__ import app
from service.settings import Settings, variable
from service.supervisor import as_environment, for_nodes


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
@pytest.mark.parametrize("auth", ["none", "token"])
def test_this_machine_may_be_listened_on(host: str, auth: Any) -> None:
    assert Settings(host=host, auth=auth).host == host


OTHERS = ["0.0.0.0", "::", "192.168.1.2", "10.0.0.1", "example.org", "", "localhost.example"]


@pytest.mark.parametrize("host", OTHERS)
def test_others_may_not_without_authentication(host: str) -> None:
    with pytest.raises(ValidationError, match="must be a loopback address"):
        Settings(host=host)


@pytest.mark.parametrize("host", OTHERS)
def test_others_may_with_it(host: str) -> None:
    assert Settings(host=host, auth="token").host == host


def test_serve_says_what_to_do_before_it_listens_to_others() -> None:
    refused = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0"])
    assert refused.exit_code == 2
    (line,) = refused.output.splitlines()
    assert line.startswith("host: ")
    assert "python -m service token create" in line
    assert "--auth token" in line


def test_a_kind_of_authentication_that_there_is_not_is_none() -> None:
    refused = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--auth", "password"])
    assert refused.exit_code == 2
    assert "auth: must be 'none' or 'token'" in refused.output


def test_help_names_every_variable_and_its_default() -> None:
    shown = CliRunner().invoke(app, ["serve", "--help"], terminal_width=200).stdout
    shown = " ".join(shown.replace("\u2502", " ").split())
    for field in Settings.model_fields:
        assert variable(field) in shown
    for told in ("Default: 127.0.0.1.", "Default: 8000.", "Default: .emascale.", "Default: jobs in the data folder."):
        assert told in shown


@pytest.mark.parametrize("arguments", [["serve"], ["token", "list"], ["migrate"]], ids=" ".join)
def test_a_variable_that_is_taken_for_another_is_not_passed_over(arguments: list[str]) -> None:
    refused = CliRunner().invoke(app, arguments, env={"EMASCALE_DATA": "/srv"})
    assert refused.exit_code == 2
    assert refused.stderr == "EMASCALE_DATA: is no setting, EMASCALE_DATA_FOLDER is; unset it.\n"


def test_names_for_others_need_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMASCALE_ALLOWED_HOSTS", "Train.example.org, other.example.org")
    assert Settings(auth="token").allowed_hosts == ("train.example.org", "other.example.org")
    with pytest.raises(ValidationError, match="must be empty while auth is none"):
        Settings()


def test_children_get_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in ((), ("a.example",), ("a.example", "b.example")):
        settings = Settings(data_folder=tmp_path, auth="token", host="0.0.0.0", allowed_hosts=names)
        for name, value in as_environment(settings).items():
            monkeypatch.setenv(name, value)
        assert Settings() == settings


def test_what_users_code_sees_holds_no_secret_of_the_service() -> None:
    secrets = {"EMASCALE_DATABASE_URL": "postgresql://me:secret@h/n", "EMASCALE_TOKEN": "ema_1_secret"}
    assert for_nodes({"PATH": "/bin", **secrets}) == {"PATH": "/bin"}


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
        ("mysql://h/n", 2, "database_url: must begin with sqlite:/// or postgresql://"),
        ("postgresql://me:secret@127.0.0.1:1/jobs", 1, "database_url: postgresql+psycopg://me:***@127.0.0.1:1/jobs"),
    ],
)
def test_a_database_that_cannot_be_used_is_named(url: str, code: int, why: str) -> None:
    refused = CliRunner().invoke(app, ["migrate"], env={"EMASCALE_DATABASE_URL": url})
    assert refused.exit_code == code
    assert why in refused.output
    assert "secret" not in refused.output
