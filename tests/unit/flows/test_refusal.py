from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifacts import Export, ModelVersion, OnnxModel
from pipeline.errors import RefusedError, SettingsError
from pipeline.flows.refusal import refused
from pipeline.reports import Comparison, Question, Report


def comparison(
    problem: str, question: Question = Question.VALUES, error: float = 0.5
) -> Comparison:
    return Comparison(
        subject="onnx, batch 7",
        output=problem if problem.startswith("output") else "y",
        rows=7,
        mismatched=1,
        max_absolute_error=error,
        problem=problem,
        inputs="16 generated rows",
        question=question,
    )


def report(*problems: str) -> Report:
    """Problems that name a question are of that kind, and the first is the worst."""
    kinds = [next((q for q in Question if q in p), Question.VALUES) for p in problems]
    errors = [1 / (number + 1) for number in range(len(problems))]
    return Report(
        comparisons=tuple(map(comparison, problems, kinds, errors)),
        samples_origin="",
        relative_tolerance=1e-3,
        absolute_tolerance=1e-5,
    )


Refuse = Callable[..., RefusedError]


@pytest.fixture
def refuse(tmp_path: Path) -> Refuse:
    def run(*problems: str, folder: str = "", has_cases: bool = True) -> RefusedError:
        path, cases = tmp_path / "onnx", tmp_path / "cases"
        for made in (path, cases):
            made.mkdir(exist_ok=True)
        (path / "model.onnx").write_text("graph")
        if has_cases:
            (cases / "case-1.npz").write_text(problems[0])
            (cases / "reproduce.py").write_text("")
        onnx = OnnxModel(
            path=path,
            opset=17,
            inputs=(),
            outputs=(),
            digest="",
            source_digest="",
            flavor="",
            tools={},
        )
        export = Export(onnx=onnx, samples=tmp_path, samples_origin="")
        version = ModelVersion(name="iris ü", version=3, run_id=None, source="", tags={})
        return refused(report(*problems), export, cases, version=version, folder=folder)

    return run


def test_what_failed_is_kept_with_its_graph_and_the_message_says_where(
    refuse: Refuse, tmp_path: Path
) -> None:
    error = refuse("output 'y' differs", folder=str(tmp_path / "kept"))
    place = tmp_path / "kept" / "iris_ü-3"
    assert {p.name for p in place.iterdir()} == {"onnx", "case-1.npz", "reproduce.py"}
    assert (place / "onnx" / "model.onnx").read_text() == "graph"
    assert f"python {place / 'reproduce.py'}" in error.message
    assert "iris ü/3 does not agree" in error.message
    assert error.message.splitlines()[1:] == [
        "  output 'y' differs",
        "    in onnx, batch 7, 16 generated rows",
        "  allowed: 1e-05 + 0.001 * |expected|",
        f"  failing inputs and graph: {place}",
        f"  see it fail: python {place / 'reproduce.py'}",
    ]
    assert "tritonpipe.allowed_row_fraction" in error.hint


def test_many_findings_are_counted(refuse: Refuse, tmp_path: Path) -> None:
    problems = [f"output {number}" for number in range(5)]
    error = refuse(*problems, "output 0", folder=str(tmp_path / "kept"))
    assert [p for p in problems if p in error.message] == problems[:3]
    assert "and 3 more findings" in error.message


def test_of_one_output_the_worst_is_told(refuse: Refuse, tmp_path: Path) -> None:
    lines = refuse("by far", "by little", folder=str(tmp_path / "kept")).message.splitlines()
    assert lines[1] == "  by far"
    assert "  by little" not in lines
    assert "  and 1 more finding" in lines


def test_the_cause_is_told_before_what_follows_from_it(refuse: Refuse, tmp_path: Path) -> None:
    problems = ["values 1", "values 2", "values 3", "neighbours", "decision"]
    message = refuse(*problems, folder=str(tmp_path / "kept")).message
    places = [message.index(problem) for problem in ("neighbours", "decision", "values 1")]
    assert places == sorted(places)
    assert "values 2" not in message


def test_a_refusal_replaces_the_earlier_one_of_the_same_version(
    refuse: Refuse, tmp_path: Path
) -> None:
    for problem in ("first", "second"):
        refuse(problem, folder=str(tmp_path / "kept"))
    (place,) = (tmp_path / "kept").iterdir()
    assert (place / "case-1.npz").read_text() == "second"


def test_without_inputs_nothing_is_kept(refuse: Refuse, tmp_path: Path) -> None:
    error = refuse("cannot load", folder=str(tmp_path / "kept"), has_cases=False)
    assert "failing inputs" not in error.message
    assert not (tmp_path / "kept").exists()


def test_the_default_folder_is_this_users_alone(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    refuse("differs")
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.name.startswith("tritonpipe-refused-")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_of_somebody_else_is_not_followed(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    refuse("differs")
    (folder,) = (tmp_path / "temporary").iterdir()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SettingsError, match="not a folder of this user"):
        refuse("differs")


def test_a_folder_that_cannot_be_made(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be kept") as caught:
        refuse("differs", folder=str(tmp_path / "file" / "below"))
    assert "TRITONPIPE_REFUSALS" in caught.value.hint
