"""A store elsewhere: what the environment says of S3, and Lance's faults in words."""

import os
import re
from collections.abc import MutableMapping
from urllib.parse import urlsplit

from embedstore.errors import EmbedstoreError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
"""Variables that name where S3 is served from, in the order of their weight."""

_MAX_LENGTH = 300


def settle(uri: str, environment: MutableMapping[str, str] = os.environ) -> None:
    """Complete what the environment says of an s3:// store, so that an endpoint alone will do.

    As in AWS's own tools, http in the endpoint's address allows http, and one for S3 alone wins.
    EmbedstoreError where the endpoint is no address, which Lance would not survive.
    """
    if not uri.startswith("s3://"):
        return
    named = next((k for k in ENDPOINTS if environment.get(k, "").strip()), None)
    if named is None:
        return
    endpoint = environment[named].strip()
    if not _is_address(endpoint):
        raise EmbedstoreError(
            f"{named} is '{endpoint}', which is no address; give http://HOST:PORT or https://HOST"
        )
    environment["AWS_ENDPOINT_URL"] = endpoint
    environment.pop("AWS_ENDPOINT", None)
    if endpoint.lower().startswith("http://"):
        environment.setdefault("AWS_ALLOW_HTTP", "true")
    if not environment.get("AWS_REGION") and not environment.get("AWS_DEFAULT_REGION"):
        environment["AWS_REGION"] = "us-east-1"


def _is_address(endpoint: str) -> bool:
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # a ValueError where it is no number or too large
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and " " not in endpoint


def in_words(e: BaseException) -> str:
    """Return what an error of Lance says, without the structures and source paths around it."""
    text = str(e)
    if "RustPanic" in type(e).__name__ or "panicked" in text:
        return "Lance broke off; if the store is on s3://, check the AWS_ variables"
    if "AWS credentials" in text:
        return (
            "no credentials for AWS: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE"
        )
    if (said := re.search(r"<Message>(.*?)</Message>", text)) is not None:
        return said[1]
    asked = re.search(r"uri: Some\((\w+://[^/)\s]+)", text)
    if asked is not None and (why := _why(text)):
        return f"{asked[1]}: {why}"
    lines = text.strip().splitlines() or [type(e).__name__]
    plain = re.split(r",? ?(?:location: Location \{|\(?/\S+\.rs:\d+)", lines[0])[0]
    plain = re.sub(r"^(?:LanceError\(\w+\): |lance error: |External error: )+", "", plain)
    plain = plain.rstrip(" ,(")
    return plain if len(plain) <= _MAX_LENGTH else f"{plain[:_MAX_LENGTH]} ..."


def _why(text: str) -> str | None:
    """Return why a request came to nothing: the innermost reason that is given in words."""
    reasons = re.findall(r'(?:message|error): "([^"]+)"', text)
    if reasons:
        return str(reasons[-1])
    if (status := re.search(r"Status \{ status: (\d+)", text)) is not None:
        return f"status {status[1]}"
    kinds = re.findall(r"kind: (\w+)", text)
    if "InvalidContentType" in text:
        return "it does not speak https"
    return f"no answer ({kinds[-1]})" if kinds else None
