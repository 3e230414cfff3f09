from __future__ import annotations

import json

import pytest

from pipeline import errors
from pipeline.cli.errors import EXIT_CODES, exit_code, report


def leaves() -> list[type[errors.TritonpipeError]]:
    return list(errors.TritonpipeError.__subclasses__())


def test_every_reaction_has_an_exit_code_of_its_own() -> None:
    codes = [exit_code(leaf("x")) for leaf in leaves()]
    assert set(EXIT_CODES) == set(leaves())
    assert len(set(codes)) == len(codes)
    assert not {0, 1, 2, 130} & set(codes)


def test_words_go_to_stderr_with_the_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(errors.RequestError("no such model", hint="register it"), as_json=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no such model" in captured.err
    assert "register it" in captured.err


def test_json_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    code = report(errors.RefusedError("differs"), as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document["error"] == {
        "kind": "RefusedError",
        "message": "differs",
        "hint": "",
        "exit_code": code,
    }


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    assert errors.__doc__ is not None
    for leaf in leaves():
        assert leaf.__name__ in errors.__doc__
