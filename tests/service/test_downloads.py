"""Downloads: whole, in ranges that fit together, not again where nothing changed, and never from outside the folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from itertools import count

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.downloads import CHUNK, RangeNotSatisfiable, wanted
from service.tables import Job
from tests.service.world import World, problem

TIMES = count(10**18, 10**9)
CONTENT = bytes(range(256)) * (3 * CHUNK // 256) + b"end"


Store = Callable[[str, bytes], None]
"""(path, content) of a job's file, written anew by somebody else."""


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, world: World) -> tuple[str, Store]:
    """A job, and how to write into its folder."""
    job = world.submit()
    if request.param == "s3":
        bucket = request.getfixturevalue("bucket")
        with world.database.writing() as session:
            session.get_one(Job, job).storage = f"{bucket.url}/{job}"
        return job, lambda path, content: bucket.put(f"{job}/{path}", content)

    def write(path: str, content: bytes) -> None:
        file = world.store(job, path, content)
        os.utime(file, ns=(0, next(TIMES)))  # another time than that of the file before, however coarse the clock

    return job, write


@pytest.fixture(params=["artifacts", "checkpoints"])
def file(request: pytest.FixtureRequest, place: tuple[str, Store]) -> tuple[str, Callable[[bytes], None]]:
    """Address of a file that is read in several chunks, and how to write it anew."""
    job, write = place
    write(f"{request.param}/000/ema.safetensors", CONTENT)
    return f"/v1/jobs/{job}/{request.param}/000/ema.safetensors", partial(write, f"{request.param}/000/ema.safetensors")


@pytest.fixture
def address(file: tuple[str, Callable[[bytes], None]]) -> str:
    return file[0]


@pytest.fixture
def replace(file: tuple[str, Callable[[bytes], None]]) -> Callable[[bytes], None]:
    return file[1]


def get(world: World, address: str, **headers: str) -> httpx.Response:
    return world.http.get(address, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_the_whole_file(world: World, address: str) -> None:
    response = get(world, address)
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''ema.safetensors"
    assert response.headers["accept-ranges"] == "bytes"


def test_an_interrupted_download_goes_on_where_it_broke_off(world: World, address: str) -> None:
    first = get(world, address, range="bytes=0-99999")
    rest = get(world, address, range="bytes=100000-", if_range=first.headers["etag"])
    assert (first.status_code, rest.status_code) == (206, 206)
    assert rest.headers["content-range"] == f"bytes 100000-{len(CONTENT) - 1}/{len(CONTENT)}"
    assert first.content + rest.content == CONTENT


def test_a_file_that_was_replaced_meanwhile_is_sent_whole(
    world: World, address: str, replace: Callable[[bytes], None]
) -> None:
    first = get(world, address, range="bytes=0-99999")
    replace(CONTENT[::-1])
    rest = get(world, address, range="bytes=100000-", if_range=first.headers["etag"])
    assert (rest.status_code, rest.content) == (200, CONTENT[::-1])


def test_the_last_bytes(world: World, address: str) -> None:
    assert get(world, address, range="bytes=-3").content == b"end"
    assert get(world, address, range="Bytes=-3").content == b"end"


def test_a_range_of_a_huge_file_is_not_read_from_its_beginning(world: World) -> None:
    """Terabytes, of which the disk has the last bytes alone."""
    job = world.submit()
    with world.store(job, "artifacts/huge").open("r+b") as file:
        file.seek(2**42)
        file.write(b"end")
    response = get(world, f"/v1/jobs/{job}/artifacts/huge", range=f"bytes={2**42}-")
    assert (response.content, response.headers["content-range"]) == (b"end", f"bytes {2**42}-{2**42 + 2}/{2**42 + 3}")


def test_a_file_that_has_not_changed_is_not_sent_again(
    world: World, address: str, replace: Callable[[bytes], None]
) -> None:
    etag = get(world, address).headers["etag"]
    for header in (etag, f'"other", W/{etag}', "*"):
        again = get(world, address, if_none_match=header)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    replace(CONTENT[::-1])
    changed = get(world, address, if_none_match=etag)
    assert (changed.status_code, changed.content) == (200, CONTENT[::-1])


def test_who_names_a_file_gets_that_one_or_none(world: World, address: str, replace: Callable[[bytes], None]) -> None:
    etag = get(world, address).headers["etag"]
    assert get(world, address, if_match=etag, range="bytes=-3").content == b"end"
    replace(CONTENT[::-1])
    problem(get(world, address, if_match=etag), 412, "precondition_failed")


def test_a_head_is_the_headers_of_the_whole_file(world: World, address: str) -> None:
    asked = world.http.head(address, headers={"Range": "bytes=0-9"})
    whole = get(world, address)
    assert (asked.status_code, asked.content) == (200, b"")
    told = ("content-length", "content-type", "content-disposition", "etag", "accept-ranges")
    assert {name: asked.headers[name] for name in told} == {name: whole.headers[name] for name in told}
    assert world.http.head(f"{address}.no").status_code == 404


def test_a_range_beyond_the_end_says_how_long_the_file_is(world: World, address: str) -> None:
    response = get(world, address, range=f"bytes={len(CONTENT)}-")
    assert str(len(CONTENT)) in problem(response, 416, "range_not_satisfiable")["detail"]
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"


def test_an_empty_file(world: World) -> None:
    job = world.submit()
    world.store(job, "artifacts/empty")
    response = get(world, f"/v1/jobs/{job}/artifacts/empty")
    assert (response.status_code, response.content, response.headers["content-length"]) == (200, b"", "0")


def test_names_of_all_kinds(world: World) -> None:
    job = world.submit()
    world.store(job, 'artifacts/deep/er/ü "x".bin', b"1")
    response = get(world, f'/v1/jobs/{job}/artifacts/deep/er/ü "x".bin')
    assert response.content == b"1"
    assert response.headers["content-disposition"] == "attachment; filename*=utf-8''%C3%BC%20%22x%22.bin"


SIZES = st.integers(1, 1000)


@given(size=SIZES, first=st.integers(0, 1200), last=st.integers(0, 1200))
def test_a_range_is_the_slice_that_its_ends_include(size: int, first: int, last: int) -> None:
    positions = range(size)
    if last < first:
        assert wanted(f"bytes={first}-{last}", size) is None
    elif first >= size:
        with pytest.raises(RangeNotSatisfiable):
            wanted(f"bytes={first}-{last}", size)
    else:
        found = wanted(f"bytes={first}-{last}", size)
        assert found is not None
        assert range(*found) == positions[first : last + 1]
        rest = wanted(f"bytes={first}-", size)
        assert rest is not None
        assert range(*rest) == positions[first:]


@given(size=SIZES, count=st.integers(1, 1200))
def test_a_suffix_is_the_end_of_the_file(size: int, count: int) -> None:
    found = wanted(f"bytes=-{count}", size)
    assert found is not None
    assert range(*found) == range(size)[-count:]


@pytest.mark.parametrize("header", ["", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", "bytes=5-2", "0-1"])
def test_what_is_no_range_of_bytes_means_the_whole_file(header: str) -> None:
    assert wanted(header, 10) is None


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "%2e%2e/secret",
        "..%2fsecret",
        "x/../../secret",
        "./../secret",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "..\\secret",
        "x%00",
        "",
        "x/",
        "folder",
        "out",
        "through/secret",
        "x" * 300,
    ],
)
@pytest.mark.parametrize("kind", ["artifacts", "checkpoints"])
def test_no_path_leads_out_of_the_folder(world: World, kind: str, path: str) -> None:
    job = world.submit()
    secret = world.store(job, "secret", b"secret")
    world.store(job, f"{kind}/folder/file", b"file")
    folder = secret.parent / kind
    outside = world.settings.data_folder / "secret"
    outside.write_bytes(b"secret")
    (folder / "out").symlink_to(outside)
    (folder / "through").symlink_to(world.settings.data_folder)
    problem(world.http.get(f"/v1/jobs/{job}/{kind}/{path}"), 404, "not_found")


def test_no_path_leads_to_another_job(world: World) -> None:
    job, other = world.submit(), world.submit()
    world.store(job, "artifacts/x", b"mine")
    world.store(other, "artifacts/y", b"theirs")
    problem(world.http.get(f"/v1/jobs/{job}/artifacts/..%2f..%2f{other}%2fartifacts%2fy"), 404, "not_found")
    problem(world.http.get(f"/v1/jobs/..%2f{other}/artifacts/y"), 404, "not_found")


def test_what_is_not_listed_is_not_served(world: World) -> None:
    """A file that is being written, under the name that it has until then."""
    job = world.submit()
    world.store(job, "artifacts/.writing-3f", b"half")
    assert world.get(f"/v1/jobs/{job}/artifacts")["items"] == []
    problem(world.http.get(f"/v1/jobs/{job}/artifacts/.writing-3f"), 404, "not_found")


def test_storage_that_does_not_answer_is_unavailable(world: World) -> None:
    job = world.submit()
    with world.database.writing() as session:
        session.get_one(Job, job).storage = "nowhere://bucket"
    for path in ("artifacts", "artifacts/x", "checkpoints", "checkpoints/1/x", "logs"):
        problem(world.http.get(f"/v1/jobs/{job}/{path}"), 503, "unavailable")
