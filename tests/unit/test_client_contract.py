from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.client_contract import changes_for_clients

X = 'input { name: "X" data_type: TYPE_FP32 dims: [13] }'
LABEL = 'output { name: "label" data_type: TYPE_INT64 dims: [1] }'
BEFORE = f"max_batch_size: 64 {X} {LABEL}"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("TYPE_FP32", "TYPE_FP64", "clients must now send X: FP64[?,13] instead of FP32[?,13]"),
        ("dims: [13]", "dims: [10]", "clients must now send X: FP32[?,10] instead of FP32[?,13]"),
        (X, f"{X} input {{ name: 'a' data_type: TYPE_STRING dims: [1] }}",
         "clients must now send a: STRING[?,1]"),
        ("TYPE_INT64", "TYPE_STRING", "clients now get label: STRING[?,1] instead of INT64[?,1]"),
        ("dims: [1] }", "dims: [-1] }", "clients now get label: INT64[?,?] instead of INT64[?,1]"),
        (LABEL, "", "clients no longer get label: INT64[?,1]"),
        ("64", "8", "clients must now send at most 8 rows in a request instead of 64"),
    ],
)  # fmt: skip
def test_what_breaks_a_client_is_told(old: str, new: str, told: str) -> None:
    assert changes_for_clients(BEFORE, BEFORE.replace(old, new, 1)) == (told,)


def test_an_input_of_another_name_is_two_changes() -> None:
    assert changes_for_clients(BEFORE, BEFORE.replace('"X"', '"rows"')) == (
        "clients must now send rows: FP32[?,13]",
        "clients must no longer send X: FP32[?,13]",
    )


def test_an_input_that_could_be_left_out_and_no_longer_can() -> None:
    optional = BEFORE.replace("dims: [13]", "dims: [13] optional: true")
    told = changes_for_clients(optional, BEFORE)
    assert told == ("clients may no longer leave out X: FP32[?,13]",)
    assert changes_for_clients(BEFORE, optional) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("dims: [13]", "dims: [-1]"),
        (X, f"{X} input {{ name: 'a' data_type: TYPE_FP32 dims: [1] optional: true }}"),
        (LABEL, f"{LABEL} output {{ name: 'p' data_type: TYPE_FP32 dims: [3] }}"),
        ("64", "128"),
    ],
)
def test_what_breaks_none_is_not_told(old: str, new: str) -> None:
    assert changes_for_clients(BEFORE, BEFORE.replace(old, new, 1)) == ()


def test_a_batch_dimension_that_goes_is_told_of_every_tensor() -> None:
    after = BEFORE.replace("max_batch_size: 64", "max_batch_size: 0")
    assert [line.split(":")[0] for line in changes_for_clients(BEFORE, after)] == [
        "clients must now send X",
        "clients now get label",
    ]


@pytest.mark.parametrize(
    ("rows", "most", "told"),
    [(-1, 64, "any number"), (65, 64, "65"), (64, 64, ""), (64, 65, ""), (1, 1, "")],
)
def test_a_limit_of_rows_that_comes_with_batching_is_told(rows: int, most: int, told: str) -> None:
    alone = BEFORE.replace("size: 64", "size: 0").replace("[13]", f"[{rows}, 13]")
    alone = alone.replace("dims: [1]", "dims: [-1, 1]")
    after = BEFORE.replace("size: 64", f"size: {most}")
    limit = f"clients must now send at most {most} rows in a request instead of {told}"
    assert changes_for_clients(alone, after) == ((limit,) if told else ())


def test_a_limit_of_rows_that_goes_with_batching_is_no_change() -> None:
    alone = BEFORE.replace("size: 64", "size: 0").replace("dims: [", "dims: [-1, ")
    assert changes_for_clients(BEFORE, alone) == ()


_TENSOR = st.builds(
    '{} {{ name: "{}" data_type: TYPE_{} dims: [{}] }}'.format,
    st.sampled_from(["input", "output"]),
    st.sampled_from("abc"),
    st.sampled_from(["FP32", "INT64", "STRING"]),
    st.sampled_from([-1, 1, 2]),
)


@given(st.lists(_TENSOR, max_size=4, unique_by=lambda text: text[:15]), st.integers(0, 3))
def test_nothing_changes_for_clients_of_the_same_config(tensors: list[str], size: int) -> None:
    config = f"max_batch_size: {size} {' '.join(tensors)}"
    assert changes_for_clients(config, config) == ()
