"""What only a real connection shows: paths and headers as they are sent, with no client that tidies them up first."""

from __future__ import annotations

import json
import socket

import httpx
import pytest

from tests.service.world import World, spec


def exchange(wire: httpx.Client, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer to these very bytes."""
    url = wire.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(2**16):
            answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


def get(path: str, host: str = "localhost") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()


@pytest.mark.parametrize(
    "path",
    ["../../../secret", "..%2f..%2f..%2fsecret", "%2e%2e/%2e%2e/%2e%2e/secret", "..%5c..%5csecret", "x%00", "%ff"],
)
def test_no_path_as_it_is_sent_leads_out_of_the_folder(world: World, wire: httpx.Client, path: str) -> None:
    job = world.submit()
    world.store(job, "artifacts/x", b"mine")
    (world.settings.data_folder / "secret").write_bytes(b"secret")
    status, headers, body = exchange(wire, get(f"/v1/jobs/{job}/artifacts/{path}"))
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert json.loads(body)["code"] == "not_found"


def test_another_name_of_this_machine_is_refused(wire: httpx.Client) -> None:
    status, headers, _ = exchange(wire, get("/v1/jobs", host="evil.example"))
    assert (status, headers["content-type"]) == (403, "application/problem+json")


def test_a_request_without_a_host_is_refused(wire: httpx.Client) -> None:
    status, _, _ = exchange(wire, b"GET /v1/jobs HTTP/1.0\r\n\r\n")
    assert status == 403


def test_a_body_is_refused_by_the_size_that_it_announces(world: World, wire: httpx.Client) -> None:
    """Before it is sent."""
    length = world.settings.max_body_bytes + 1
    head = (
        f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
    )
    status, headers, body = exchange(wire, f"{head}Connection: close\r\n\r\n".encode())
    assert (status, headers["content-type"]) == (413, "application/problem+json")
    assert json.loads(body)["code"] == "payload_too_large"


def test_a_body_in_pieces_is_read(world: World, wire: httpx.Client) -> None:
    text = json.dumps(spec()).encode()
    pieces = (text[start : start + 7] for start in range(0, len(text), 7))
    response = wire.post("/v1/jobs", content=pieces, headers={"Content-Type": "application/json"})
    assert response.status_code == 201
    assert world.job(response.json()["id"])["name"] == "digits"


def test_a_download_breaks_off_rather_than_end_early(world: World, wire: httpx.Client) -> None:
    """A file that became shorter since its length was told: nobody must take the half for the whole."""
    job = world.submit()
    file = world.store(job, "artifacts/x", b"x" * 50_000_000)
    with wire.stream("GET", f"/v1/jobs/{job}/artifacts/x") as response:
        chunks = response.iter_raw()
        next(chunks)
        file.write_bytes(b"")
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)
