from __future__ import annotations

import pytest

from pipeline.findings import Severity
from pipeline.odd_names import odd_names

OURS = [
    ".tritonpipe",
    "fraud/config.pbtxt",
    "fraud/warmup/README",
    "fraud/3/model.onnx",
    "fraud/3/weights/part-0.bin",
    "fraud/3/manifest.json",
    "fraud/3/manifest.json.sig",
    "fraud/123456789012345678/model.onnx",
    "model.v2_x-1/1/model.py",
]


def test_a_repository_of_ours_is_not_odd() -> None:
    assert odd_names(OURS) == []


@pytest.mark.parametrize(
    ("key", "severity", "code", "subject"),
    [
        ("/fraud/1/x", Severity.ERROR, "empty-name", "/fraud/1/x"),
        ("fraud//x", Severity.ERROR, "empty-name", "fraud//x"),
        ("fraud/3//x", Severity.ERROR, "empty-name", "fraud/3//x"),
        (".pipeline/state.json", Severity.ERROR, "illegal-model-name", ".pipeline/"),
        (".pipeline/1/x", Severity.ERROR, "illegal-model-name", ".pipeline/"),
        ("_records/1/x", Severity.ERROR, "illegal-model-name", "_records/"),
        ("a+b/1/x", Severity.WARNING, "illegal-model-name", "a+b/"),
        ("a b/1/x", Severity.WARNING, "illegal-model-name", "a b/"),
        ("notes/todo.txt", Severity.ERROR, "no-model", "notes/"),
        ("new/warmup/README", Severity.ERROR, "no-model", "new/"),
        ("_manifest.json", Severity.NOTE, "root-file", "_manifest.json"),
        ("a name=1", Severity.NOTE, "root-file", "a name=1"),
        ("fraud/conf", Severity.ERROR, "blinds-triton", "fraud/conf"),
        ("fraud/config", Severity.ERROR, "blinds-triton", "fraud/config"),
        ("fraud/config/x", Severity.ERROR, "blinds-triton", "fraud/config/"),
        ("fraud/config.pbtxt.sig", Severity.WARNING, "file-in-model-folder", None),
        ("fraud/3.json", Severity.WARNING, "file-in-model-folder", None),
        ("fraud/warmup/data", Severity.NOTE, "content-folder", "fraud/warmup/"),
        ("fraud/configs/prod.pbtxt", Severity.NOTE, "content-folder", "fraud/configs/"),
        ("fraud/notes/x", Severity.WARNING, "folder-in-model-folder", "fraud/notes/"),
        ("fraud/-1/x", Severity.WARNING, "folder-in-model-folder", "fraud/-1/"),
        ("fraud/3.tmp/x", Severity.WARNING, "odd-version", "fraud/3.tmp/"),
        ("fraud/2024-01-01/x", Severity.WARNING, "odd-version", "fraud/2024-01-01/"),
        ("fraud/03/x", Severity.WARNING, "odd-version", "fraud/03/"),
        ("fraud/0/x", Severity.WARNING, "odd-version", "fraud/0/"),
        ("fraud/1234567890123456789/x", Severity.WARNING, "odd-version", None),
        ("fraud/9223372036854775808/x", Severity.ERROR, "aborts-triton", None),
        ("fraud/12345678901234567890/x", Severity.ERROR, "aborts-triton", None),
        ("fraud/12345678901234567890.tmp/x", Severity.ERROR, "aborts-triton", None),
        ("fraud/-9223372036854775808/x", Severity.WARNING, "folder-in-model-folder", None),
        ("fraud/-12345678901234567890/x", Severity.ERROR, "aborts-triton", None),
        ("fraud/3/a b", Severity.WARNING, "unsafe-file-name", "fraud/3/a b"),
        ("fraud/3/é", Severity.WARNING, "unsafe-file-name", "fraud/3/é"),
        ("fraud/3/a+/x", Severity.WARNING, "unsafe-file-name", "fraud/3/a+/x"),
        ("fraud/3", Severity.NOTE, "folder-marker", "fraud/3"),
        ("fraud/3/weights/", Severity.NOTE, "folder-marker", "fraud/3/weights/"),
    ],
)
def test_each_odd_name_is_found_among_the_others(
    key: str, severity: Severity, code: str, subject: str | None
) -> None:
    (finding,) = odd_names([key, *OURS])
    assert (finding.severity, finding.code) == (severity, code)
    assert finding.subject in {subject, key, key.rpartition("/")[0] + "/"}
    assert finding.message
    assert finding.hint


def test_many_objects_of_one_odd_folder_are_one_finding() -> None:
    keys = [f".pipeline/{n}" for n in range(50)] + [f"fraud/notes/{n}" for n in range(50)]
    assert [f.subject for f in odd_names(OURS + keys)] == [".pipeline/", "fraud/notes/"]


def test_the_order_of_keys_does_not_matter_and_the_worst_comes_first() -> None:
    keys = [*OURS, "stray", "fraud/notes/x", "fraud/conf", "zzz//x"]
    findings = odd_names(keys)
    assert findings == odd_names(reversed(keys))
    assert [f.severity.value for f in findings] == ["error", "error", "warning", "note"]
