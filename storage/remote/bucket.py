"""A folder in an object store, by URL: a connection that gives up in bounded time, and errors in one line."""

import contextlib
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import from_url

from storage.errors import UserError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")

# A server that does not answer costs at most two minutes of retries and a last silent request. `read_timeout` also
# bounds the sending of one part of an upload, and `timeout` one whole request, the body of a large shard included.
_RETRIES: "RetryConfig" = {"max_retries": 3, "retry_timeout": timedelta(seconds=120)}
_CLIENT: "ClientConfig" = {"connect_timeout": "20s", "read_timeout": "60s", "timeout": "15m"}

_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def is_url(location: object) -> bool:
    """Whether a store's location is a URL, not a folder."""
    return "://" in str(location)


def connect(url: str) -> "ObjectStore":
    """The folder at `url`, such as `s3://bucket/name.zarr`; nothing is sent yet.

    Endpoint, region and credentials are those of the environment (`AWS_ENDPOINT_URL`, `AWS_REGION`,
    `AWS_ACCESS_KEY_ID`, ...), and on a cloud machine those of the machine.

    Raises
    ------
    UserError
        If `url` does not name a folder in a bucket.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise UserError(f"{parts.scheme}://...@...: no credentials in URLs; set AWS_ACCESS_KEY_ID and its like instead")
    if parts.scheme not in SCHEMES or not parts.netloc or not parts.path.strip("/"):
        raise UserError(f"{url}: not the URL of a store; use one like s3://bucket/name.zarr")
    plain_http = any(os.environ.get(name, "").startswith("http://") for name in _ENDPOINT_VARIABLES)
    options: ClientConfig = {**_CLIENT, "allow_http": True} if plain_http else _CLIENT
    with reported(url):
        return from_url(url, client_options=options, retry_config=_RETRIES)


@contextlib.contextmanager
def reported(url: str) -> Iterator[None]:
    """Turn what obstore raises for the folder at `url` into a `UserError`, but for a missing object's
    `FileNotFoundError`."""
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise UserError(f"{url}: {_reason(error)}") from None
        raise
    except BaseError as error:
        raise UserError(f"{url}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    if "NoSuchBucket" in text:
        return "no such bucket; create it, or fix the URL"
    # The address at which cloud machines ask for their credentials is asked when the environment has none.
    if "/latest/api/token" in text or "/latest/meta-data" in text or "MissingAccessKeyId" in text:
        return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (public data: AWS_SKIP_SIGNATURE=true)"
    host = re.search(r"https?://(?:[^/@\s]*@)?([^/\s]+)", text)
    where = f" by {host[1]}" if host else ""
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return f"access denied{where}; check the credentials in the environment and the bucket's policy"
    # "Generic S3 error: Error performing GET <url> in 1s, after 3 retries - <what went wrong>: <xml>"
    what = text.splitlines()[0].rsplit(" - ", 1)[-1].split("<")[0].rstrip(": ")
    if "error sending request" in what or "operation timed out" in what:
        return f"no answer{where.replace(' by', ' from')}; check AWS_ENDPOINT_URL and the network"
    return f"request refused{where} ({what})"
