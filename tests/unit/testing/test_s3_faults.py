"""What is done to an answer is what its name says, and nothing else."""

from __future__ import annotations

import pytest

from pipeline.testing.s3_faults import Answer, Lag, Request, corrupted, shifted, truncated


def listing(*keys: str, stamp: str = "2026-01-01T12:00:00.000Z") -> Answer:
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>{stamp}</LastModified></Contents>" for key in keys
    )
    body = f"<ListBucketResult><KeyCount>{len(keys)}</KeyCount>{entries}</ListBucketResult>"
    return Answer(status=200, headers=(), body=body.encode())


def keys_of(answer: Answer) -> list[str]:
    return [part.split(b"</Key>")[0].decode() for part in answer.body.split(b"<Key>")[1:]]


def test_a_cut_off_answer_promises_what_it_does_not_bring() -> None:
    answer = truncated(Answer(status=200, headers=(), body=b"0123456789"))
    assert (answer.body, answer.promised) == (b"01234", 10)


@pytest.mark.parametrize("size", [1, 63, 64, 1000])
def test_a_corrupted_body_has_its_length_and_other_bytes(size: int) -> None:
    data = bytes(size)
    assert len(corrupted(data)) == size
    assert corrupted(data) != data
    assert corrupted(corrupted(data)) == data


def test_a_wrong_clock_shows_in_headers_and_listings() -> None:
    answer = Answer(
        status=200,
        headers=(("Last-Modified", "Thu, 01 Jan 2026 12:00:00 GMT"), ("ETag", '"a"')),
        body=listing("k").body,
    )
    ahead = shifted(answer, 1)
    assert ahead.headers == (("Last-Modified", "Thu, 01 Jan 2026 13:00:00 GMT"), ("ETag", '"a"'))
    assert b"<LastModified>2026-01-01T13:00:00.000Z<" in ahead.body
    assert shifted(ahead, -1) == answer


def test_a_listing_that_lags_shows_new_keys_late_and_deleted_ones_still() -> None:
    lag = Lag(1000.0)
    assert keys_of(lag.stale(listing("p/a", "p/b"), "p/")) == ["p/a", "p/b"]
    lag.note_write("/bucket/p/b")
    lag.note_write("/bucket/p/c")
    stale = lag.stale(listing("p/a", "p/c"), "p/")
    assert keys_of(stale) == ["p/a", "p/b"]
    assert b"<KeyCount>2</KeyCount>" in stale.body


def test_a_listing_that_lags_shows_the_old_object_of_a_replaced_key() -> None:
    lag = Lag(1000.0)
    old = lag.stale(listing("p/a"), "p/")
    lag.note_write("/bucket/p/a")
    assert lag.stale(listing("p/a", stamp="2026-01-01T13:00:00.000Z"), "p/").body == old.body


def test_a_lag_that_is_over_shows_what_is_there() -> None:
    lag = Lag(0.0)
    lag.stale(listing("p/b"), "p/")
    lag.note_write("/bucket/p/a")
    assert keys_of(lag.stale(listing("p/a"), "p/")) == ["p/a"]


def test_a_request_in_words_says_what_a_reader_looks_for() -> None:
    get = Request(number=1, method="GET", path="/b/a%20b", query="", size=0)
    find = Request(number=2, method="GET", path="/b", query="list-type=2&prefix=m%2F", size=0)
    assert [str(get), str(find)] == ["GET /b/a b", "LIST /b/m/"]
