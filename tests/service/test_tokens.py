"""Tokens: made with a secret that is told once, listed without it, refused once they are revoked or have expired."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import text
from typer.testing import CliRunner, Result

from api_schemas.tokens import Lifetime, NewToken, Scope, Token, TokenRequest
from service import tokens
from service.__main__ import app
from service.db import Database
from tests.service.world import START, Clock, World, pointers, problem

LIFETIMES: TypeAdapter[timedelta] = TypeAdapter(Lifetime)


def made(database: Database, scope: str = "read", expires: str | None = None) -> NewToken:
    asked = TokenRequest.model_validate({"name": "mine", "scope": scope, "expires": expires})
    return tokens.create(database, asked)


def test_a_token_is_recognised_by_its_secret(database: Database) -> None:
    token = made(database)
    found = tokens.recognise(database, token.secret)
    assert found is not None
    assert (found.id, found.name, found.scope, found.created_at) == (token.id, "mine", Scope.READ, START)


def test_the_database_does_not_hold_the_secret(database: Database) -> None:
    token = made(database)
    with database.engine.connect() as connection:
        row = " ".join(map(str, connection.execute(text("SELECT * FROM token")).one()))
    assert token.id in row
    assert token.secret.rpartition("_")[2] not in row


def test_the_secret_is_long_and_new_each_time_and_not_shown_by_accident(database: Database, clock: Clock) -> None:
    first = made(database)
    clock.move(1)
    second = made(database)
    assert first.id < second.id
    assert first.secret != second.secret
    assert re.fullmatch(rf"ema_{first.id}_[0-9a-f]{{64}}", first.secret)
    assert first.secret not in repr(first) + str(first)


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret[:0],
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: f" {secret}",
        lambda secret: secret + "\n",
        lambda secret: secret.upper(),
        lambda secret: secret[:-64] + 64 * "0",
        lambda secret: secret.replace("ema_", "emb_"),
        lambda secret: secret.replace("ema_", "ema_x"),
        lambda secret: secret.replace("ema_", "ema_\0"),
        lambda secret: secret.rpartition("_")[2],
        lambda secret: 100 * secret,
    ],
)
def test_nothing_else_is_recognised(database: Database, change: Callable[[str], str]) -> None:
    assert tokens.recognise(database, change(made(database).secret)) is None


def test_a_token_ends_with_its_time(database: Database, clock: Clock) -> None:
    token = made(database, expires="1h")
    assert token.expires_at == START + timedelta(hours=1)
    clock.move(3599)
    assert tokens.recognise(database, token.secret)
    clock.move(1)
    assert tokens.recognise(database, token.secret) is None


def test_a_revoked_token_stays_revoked_since_then_and_listed(world: World) -> None:
    token = made(world.database)
    first = world.http.delete(f"/v1/tokens/{token.id}")
    world.clock.move(60)
    again = world.http.delete(f"/v1/tokens/{token.id}")
    assert (first.status_code, first.json()) == (200, again.json())
    assert datetime.fromisoformat(first.json()["revoked_at"]) == START
    assert tokens.recognise(world.database, token.secret) is None
    assert world.get("/v1/tokens")["items"] == [first.json()]


def test_one_that_is_not_there_cannot_be_revoked(world: World) -> None:
    problem(world.http.delete("/v1/tokens/x"), 404, "not_found")
    problem(world.http.delete("/v1/tokens/%00"), 404, "not_found")
    assert list(pointers(world.http.delete(f"/v1/tokens/{'x' * 33}"))) == ["/token_id"]


def test_over_http_the_secret_is_told_once(world: World) -> None:
    response = world.http.post("/v1/tokens", json={"name": "ci", "scope": "submit", "expires": "90d"})
    assert response.status_code == 201
    token = NewToken.model_validate_json(response.content)
    assert token.expires_at == START + timedelta(days=90)
    assert tokens.recognise(world.database, token.secret) is not None
    listed = world.http.get("/v1/tokens")
    assert token.secret not in listed.text
    assert Token.model_validate(listed.json()["items"][0]) == Token.model_validate(token.model_dump())


def test_tokens_are_listed_in_pages_newest_first(world: World) -> None:
    ids = []
    for _ in range(5):
        ids.append(made(world.database).id)
        world.clock.move(1)
    page = world.get("/v1/tokens", limit=2)
    found = [token["id"] for token in page["items"]]
    while page["next"]:
        page = world.get("/v1/tokens", limit=2, after=page["next"])
        found += [token["id"] for token in page["items"]]
    assert found == ids[::-1]
    assert list(pointers(world.http.get("/v1/tokens", params={"limit": 201}))) == ["?limit"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "/name"),
        ({"name": " "}, "/name"),
        ({"name": "a\nb"}, "/name"),
        ({"name": "x" * 101}, "/name"),
        ({"scope": "root"}, "/scope"),
        ({"scope": None}, "/scope"),
        ({"expires": "0d"}, "/expires"),
        ({"expires": "90"}, "/expires"),
        ({"expires": "1.5h"}, "/expires"),
        ({"expires": "100000d"}, "/expires"),
        ({"expires": 90}, "/expires"),
        ({"secret": "mine"}, "/secret"),
    ],
)
def test_what_a_token_may_be(world: World, wrong: dict[str, Any], field: str) -> None:
    response = world.http.post("/v1/tokens", json={"name": "a", "scope": "read"} | wrong)
    assert list(pointers(response)) == [field]
    assert world.get("/v1/tokens")["items"] == []


@given(st.integers(1, 99_999), st.sampled_from("mhd"))
def test_a_lifetime_is_printed_as_it_can_be_read(number: int, unit: str) -> None:
    lifetime = LIFETIMES.validate_python(f"{number}{unit}")
    printed = LIFETIMES.dump_python(lifetime, mode="json")
    assert lifetime == number * {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}[unit]
    assert LIFETIMES.validate_python(printed) == lifetime
    assert int(printed[:-1]) <= number


@given(st.text())
def test_no_other_text_is_a_lifetime(value: str) -> None:
    if re.fullmatch(r"[1-9][0-9]{0,4}[mhd]", value):
        return
    with pytest.raises(ValidationError):
        LIFETIMES.validate_python(value)


@pytest.mark.parametrize("scope", list(Scope))
def test_each_scope_holds_those_before_it(scope: Scope) -> None:
    assert [each for each in Scope if scope.covers(each)] == list(Scope)[: list(Scope).index(scope) + 1]


# -- the command line --------------------------------------------------------------------------------------------------


def command(database_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["token", *arguments], env={"EMASCALE_DATABASE_URL": database_url})


def test_tokens_are_made_listed_and_revoked_without_a_service(database_url: str, database: Database) -> None:
    done = command(database_url, "create", "--name", "me", "--scope", "admin", "--expires", "90d")
    assert done.exit_code == 0, done.output
    secret = done.stdout.strip()
    token = tokens.recognise(database, secret) or pytest.fail("it is not recognised")
    assert (token.name, token.scope) == ("me", Scope.ADMIN)
    assert secret not in done.stderr
    assert "this once" in done.stderr

    listed = command(database_url, "list").stdout
    assert re.search(rf"{token.id} +admin +valid until \S+ \S+ +me", listed)
    assert secret not in listed

    assert command(database_url, "revoke", token.id).exit_code == 0
    assert re.search(rf"{token.id} +admin +revoked ", command(database_url, "list").stdout)
    missing = command(database_url, "revoke", "x")
    assert (missing.exit_code, missing.stderr) == (1, "There is no token 'x'.\n")


MAKE = ["token", "create", "--name", "me", "--scope", "read"]


@pytest.mark.parametrize("arguments", [MAKE, ["token", "list"], ["token", "revoke", "x"], ["migrate"]], ids=" ".join)
def test_where_there_is_no_database_none_is_made(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody is in the wrong folder: a token of a new database would open nothing."""
    monkeypatch.chdir(tmp_path)
    for options in ([], ["--data", str(tmp_path / "other")]):
        refused = CliRunner().invoke(app, [*arguments, *options])
        file = tmp_path / (options[-1] if options else ".emascale") / "emascale.db"
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"There is no database {file}. ")
        assert "--data or EMASCALE_DATA_FOLDER" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_before_the_first_serve_it_is_made_on_request(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*MAKE, "--new", "--data", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "emascale.db").exists()


def test_the_folder_is_that_of_serve(tmp_path: Path) -> None:
    folder = {"EMASCALE_DATA_FOLDER": str(tmp_path)}
    assert CliRunner().invoke(app, [*MAKE, "--new"], env=folder).exit_code == 0
    assert " me\n" in CliRunner().invoke(app, ["token", "list", "--data", str(tmp_path)]).stdout
    assert " me\n" in CliRunner().invoke(app, ["token", "list"], env=folder).stdout


def test_a_lifetime_that_is_none_is_named(database_url: str) -> None:
    refused = command(database_url, "create", "--name", "me", "--scope", "read", "--expires", "soon")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("expires: ")
    assert "90d" in refused.stderr
