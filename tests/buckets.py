"""Buckets that speak S3: moto's server, found as a user's own store is found, by the environment."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer


@contextmanager
def s3_server() -> Iterator[str]:
    """A server of its own port, for as long as the block; its address."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # after the start, which sets it
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def access(endpoint: str) -> dict[str, str]:
    """The environment variables with which AWS's own tools find a store that is not AWS's."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


class Bucket:
    """A bucket as somebody else sees it, by another library."""

    def __init__(self, endpoint: str, name: str) -> None:
        self.name = name
        self.url = f"s3://{name}/jobs"
        self._s3: Any = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="any", aws_secret_access_key="any", region_name="us-east-1"
        )
        self._s3.create_bucket(Bucket=name)

    def put(self, key: str, data: bytes) -> None:
        """Below `url`, as all keys here."""
        self._s3.put_object(Bucket=self.name, Key=f"jobs/{key}", Body=data)

    def get(self, key: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=self.name, Key=f"jobs/{key}")["Body"].read()
        return content

    def listing(self) -> list[str]:
        found = self._s3.list_objects_v2(Bucket=self.name, Prefix="jobs/").get("Contents", [])
        return [each["Key"].removeprefix("jobs/") for each in found]

    def unfinished(self) -> list[str]:
        """Uploads in parts that were begun and neither completed nor given up."""
        return [each["Key"] for each in self._s3.list_multipart_uploads(Bucket=self.name).get("Uploads", [])]

    def deny(self, *actions: str) -> None:
        """To everybody, such as "s3:DeleteObject"."""
        statement = {"Effect": "Deny", "Principal": "*", "Action": actions, "Resource": f"arn:aws:s3:::{self.name}/*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self._s3.put_bucket_policy(Bucket=self.name, Policy=policy)

    def remove(self) -> None:
        """With all that it holds."""
        while found := self._s3.list_objects_v2(Bucket=self.name).get("Contents"):
            self._s3.delete_objects(Bucket=self.name, Delete={"Objects": [{"Key": each["Key"]} for each in found]})
        self._s3.delete_bucket(Bucket=self.name)
