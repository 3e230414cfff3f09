"""The proof in its short form, as ``make prove`` runs the long one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

FAILURES = ("failed", "wrong", "half_loaded", "wrong_state", "false_success")


@pytest.mark.timeout(600)
def test_publications_survive_a_few_of_all_breaks() -> None:
    command = [sys.executable, "-P", "-m", "pipeline.testing.prove", "--short", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    rows = json.loads(done.stdout)
    assert [(r["scenario"], [r[name] for name in FAILURES]) for r in rows] == [
        (r["scenario"], [0] * len(FAILURES)) for r in rows
    ], done.stderr
    assert len(rows) == 6
    assert all(row["breaks"] >= 3 for row in rows), "a proof that breaks nothing proves nothing"
    assert sum(row["requests"] for row in rows) > 1000
    assert done.returncode == 0
