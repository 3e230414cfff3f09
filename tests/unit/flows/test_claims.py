"""Whatever stands in a tag, it is a claim, and what is computed from it can be written."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.flows.claims import (
    SUPERSEDED,
    TAG_PREFIX,
    Claim,
    ServedNowhere,
    claim_tag,
    claim_text,
    claims_of,
    reason_text,
    state_tags,
)

NOWHERE = ServedNowhere(state=SUPERSEDED, reason="another version is served", at="2026-01-01")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
FIELDS = st.sampled_from(list(Claim.__dataclass_fields__))
TEXTS = st.text() | st.builds(json.dumps, JSON | st.dictionaries(FIELDS, JSON))


@given(TEXTS, TEXTS)
@example("[" * 5000, "[" * 900)
@example(json.dumps({"max_absolute_error": 10**400}), "1" * 5000)
@example('{"alias": "\\ud800\\u0000"}', '{"latency_milliseconds": {"\\ud800": 1e999}}')
@example('{"confirmed_at": 5}', '{"confirmed_at": "a"}')
@example('{"alias": "%s"}' % ("a" * 100_000), "null")
def test_whatever_stands_in_the_tags_they_are_claims_and_give_tags(one: str, two: str) -> None:
    tags = {claim_tag("one"): one, claim_tag("two"): two}
    assert claims_of(tags).keys() == {"one", "two"}
    computed = state_tags(tags, lambda: NOWHERE)
    assert computed[f"{TAG_PREFIX}triton_model"] == "one, two"
    assert_writable(computed)


@given(st.text(st.characters(), max_size=600))
@example("exporting failed: \ud800 \x00 \x1b[31m")
def test_any_reason_can_be_written_and_is_what_is_read_again(reason: str) -> None:
    nowhere = ServedNowhere(state="refused", reason=reason, at="2026-01-01")
    computed = state_tags({}, lambda: nowhere)
    assert_writable(computed)
    assert (
        computed[f"{TAG_PREFIX}reason"] == reason_text(reason) == reason_text(reason_text(reason))
    )


def assert_writable(tags: dict[str, str | None]) -> None:
    for value in tags.values():
        if value is not None:
            value.encode()
            assert all(c in "\n\t" or c.isprintable() for c in value)
            assert value == value.strip()


@given(
    st.builds(
        Claim,
        alias=st.text(max_size=100),
        since=st.text(max_size=100),
        confirmed_at=st.text(max_size=100),
        release_digest=st.text(max_size=100),
        max_absolute_error=st.floats(allow_nan=False),
        latency_milliseconds=st.dictionaries(st.text(max_size=8), st.floats(0, 1e6), max_size=2),
    )
)
def test_a_claim_is_read_as_it_was_written(claim: Claim) -> None:
    assert claims_of({claim_tag("fraud"): claim_text(claim)}) == {"fraud": claim}
