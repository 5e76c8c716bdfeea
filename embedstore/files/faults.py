"""Faults of Lance in words, without the structures and source paths around them."""

import re

_MAX_LENGTH = 300


def is_of_lance(e: BaseException) -> bool:
    """Return whether Lance raised an error, or DuckDB since Lance raised one under it."""
    text = str(e)
    return any(
        of_lance in text for of_lance in ("LanceError", ".rs:", "lance error", "Object store")
    )


def unanswered(e: BaseException) -> str:
    """Return what to say where Lance fails in the middle of a command."""
    return (
        f"the store does not answer: {in_words(e)}; what is stored is unharmed: check the store, "
        "its rights and credentials, then run the same command again"
    )


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
