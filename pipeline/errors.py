"""Everything that can stop a promotion, one class per reaction of the caller.

::

    TritonpipeError            message: what happened, to which thing, expected and found
    ├── RequestError           ask for something that exists: model, alias, version, name
    ├── SettingsError          fix an address, a credential or an option
    ├── DependencyError        install an extra or a system library
    ├── ModelError             fix the model, or how it was logged
    ├── RefusedError           the checks disagree: look at the report; nothing was published
    ├── UnavailableError       a server did not answer: wait and run again
    ├── ConflictError          somebody else wrote, or a version exists with other bytes
    ├── ConfirmationError      published, not confirmed: what was served before is served again
    └── StackError             a part of the embedded stack failed: read its log

A bug is none of these and keeps its traceback.
"""

from __future__ import annotations


class TritonpipeError(Exception):
    """Base of all expected failures.

    Attributes:
        hint: The command or setting to change next; empty when there is none.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def add_line(self, line: str) -> None:
        """Say one thing more, on a line of its own below the message."""
        self.message = f"{self.message}\n  {line}"
        self.args = (self.message,)


class RequestError(TritonpipeError):
    """The request names something that does not exist or cannot be named so."""


class SettingsError(TritonpipeError):
    """An address, a credential or an option is wrong."""


class DependencyError(TritonpipeError):
    """A Python extra or a system library is missing."""


class ModelError(TritonpipeError):
    """The model cannot be exported as it was logged."""


class RefusedError(TritonpipeError):
    """A check failed: the release was not published and what was served is still served.

    Attributes:
        report: The :class:`pipeline.reports.Report`; None if the check was not one of answers.
    """

    def __init__(self, message: str, *, hint: str = "", report: object = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class UnavailableError(TritonpipeError):
    """A server did not answer, or answered that it cannot now; trying later may help."""


class ConflictError(TritonpipeError):
    """The store holds something that this release must not overwrite."""


class ConfirmationError(TritonpipeError):
    """The live server did not give the expected answers; the previous release was restored."""


class StackError(TritonpipeError):
    """A server of the embedded stack could not be started or has died."""
