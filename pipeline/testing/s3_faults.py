"""What a store, or the network before it, can do to one request.

The names are those of the table that the proof prints. Nothing here knows of sockets: an answer is
a value, and what falsifies it is a function.
"""

from __future__ import annotations

import enum
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qs, unquote

_HOUR: Final = timedelta(hours=1)
_ENTRY: Final = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY: Final = re.compile(rb"<Key>(.*?)</Key>")
_STAMP: Final = re.compile(rb"(<LastModified>)(.*?)(</LastModified>)")
_END_OF_LISTING: Final = b"</ListBucketResult>"
_DATE_HEADERS: Final = frozenset({"date", "last-modified"})


class Fault(enum.Enum):
    """What happens to a request."""

    KILL_BEFORE = "killed before"
    KILL_DURING = "killed half-way through the upload"
    KILL_AFTER = "killed after"
    INTERNAL_ERROR = "500"
    SLOW_DOWN = "503 SlowDown"
    FORBIDDEN = "403"
    SILENCE = "no answer"
    RESET = "connection reset"
    LOST_ANSWER = "done, but the connection lost"
    TRUNCATED = "answer cut off"
    CORRUPTED = "answer corrupted"
    CORRUPTED_UPLOAD = "upload corrupted"
    CLOCK_AHEAD = "the store's clock an hour ahead"
    CLOCK_BEHIND = "the store's clock an hour behind"
    STALE_LISTING = "a listing of two seconds ago"


KILLS: Final = (Fault.KILL_BEFORE, Fault.KILL_DURING, Fault.KILL_AFTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a client, as far as a fault may depend on it.

    Attributes:
        number: Counts from 1 in the order of arrival.
        method: HTTP method.
        path: Bucket and key, as sent.
        query: What follows the question mark, as sent.
        size: Bytes of the body.
    """

    number: int
    method: str
    path: str
    query: str
    size: int

    @property
    def is_listing(self) -> bool:
        """Whether it asks for the keys below a prefix."""
        return self.method == "GET" and "list-type=" in self.query

    @property
    def is_same_as(self) -> tuple[str, str, str]:
        """Equal for a request and its repetitions by the client."""
        return self.method, self.path, self.query

    def __str__(self) -> str:
        prefix = parse_qs(self.query).get("prefix", [""])[0] if self.is_listing else ""
        verb = "LIST" if self.is_listing else self.method
        return f"{verb} {unquote(self.path)}{'/' if prefix else ''}{prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer as it goes back to the client.

    Attributes:
        status: HTTP status.
        headers: As the store sent them, but those that speak of the connection.
        body: All of it.
        promised: The length that is announced, if another than that of the body.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    promised: int | None = None


def refusal(status: int, code: str) -> Answer:
    """An error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    return Answer(status=status, headers=(("Content-Type", "application/xml"),), body=body.encode())


REFUSALS: Final = {
    Fault.INTERNAL_ERROR: refusal(500, "InternalError"),
    Fault.SLOW_DOWN: refusal(503, "SlowDown"),
    Fault.FORBIDDEN: refusal(403, "AccessDenied"),
}
"""Answered without asking the store."""


def truncated(answer: Answer) -> Answer:
    """The first half, announced as the whole."""
    return replace(answer, body=answer.body[: len(answer.body) // 2], promised=len(answer.body))


def corrupted(data: bytes) -> bytes:
    """The same length, a bit of every 64th byte flipped, the first included."""
    return bytes(byte ^ 1 if number % 64 == 0 else byte for number, byte in enumerate(data))


def shifted(answer: Answer, hours: int) -> Answer:
    """The answer of a store whose clock is wrong by so many hours."""
    offset = hours * _HOUR
    headers = tuple(
        (name, _shifted_header(value, offset) if name.lower() in _DATE_HEADERS else value)
        for name, value in answer.headers
    )

    def moved(match: re.Match[bytes]) -> bytes:
        stamp = datetime.fromisoformat(match[2].decode()) + offset
        text = stamp.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return match[1] + text.encode() + match[3]

    return replace(answer, headers=headers, body=_STAMP.sub(moved, answer.body))


def _shifted_header(value: str, offset: timedelta) -> str:
    return format_datetime(parsedate_to_datetime(value).astimezone(UTC) + offset, usegmt=True)


class Lag:
    """Makes listings show what was there some seconds ago: new keys late, deleted ones still.

    It knows of deleted and replaced keys what the listings that went through it said.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._written: dict[bytes, float] = {}
        self._shown: dict[bytes, bytes] = {}

    def note_write(self, path: str) -> None:
        """A key was created, replaced or deleted just now."""
        key = unquote(path).strip("/").partition("/")[2]
        self._written[key.encode()] = time.monotonic()

    def stale(self, answer: Answer, prefix: str) -> Answer:
        """The same listing, as it would have been answered earlier."""
        recent = {k for k, at in self._written.items() if time.monotonic() - at < self._seconds}
        fresh = {_key(entry): entry for entry in _ENTRY.findall(answer.body)}
        entries = {key: entry for key, entry in fresh.items() if key not in recent}
        for key in recent & self._shown.keys():
            if key.startswith(prefix.encode()):
                entries[key] = self._shown[key]
        self._shown.update(entries)
        body = _ENTRY.sub(b"", answer.body)
        listed = b"".join(entries[key] for key in sorted(entries))
        count = f"<KeyCount>{len(entries)}</KeyCount>".encode()
        body = re.sub(rb"<KeyCount>\d+</KeyCount>", count, body)
        return replace(answer, body=body.replace(_END_OF_LISTING, listed + _END_OF_LISTING))


def _key(entry: bytes) -> bytes:
    match = _KEY.search(entry)
    return match[1] if match else b""
