"""A version that asks for other inputs than the one before it: served, and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

pytestmark = pytest.mark.integration


def test_what_clients_must_send_from_now_on_is_told_before_and_after(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any]
) -> None:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    register(name)
    register(name, LogisticRegression().fit(rows, [0, 0, 1, 1]), input_example=rows)
    first = tritonpipe("promote", f"{name}/1", "--json")
    assert first.data["client_changes"] == []
    told = "clients must now send X: FP32[?,2] instead of FP32[?,3]"
    planned = tritonpipe("promote", f"{name}/2", "--dry-run", "--json")
    assert planned.data["client_changes"] == [told]
    assert f"warning {told}" in tritonpipe("promote", f"{name}/2", "--dry-run").out
    done = tritonpipe("promote", f"{name}/2", "--json")
    assert (done.code, done.data["client_changes"]) == (0, [told])
    assert told in done.err
    back = tritonpipe("promote", f"{name}/1", "--dry-run", "--json")
    assert back.data["client_changes"] == [
        "clients must now send X: FP32[?,3] instead of FP32[?,2]"
    ]
