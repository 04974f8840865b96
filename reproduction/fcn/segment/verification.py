"""The result of verifying a weights file: one record for each check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

FORMAT_VERSION = 1

#: What none of the checks can detect; part of every result.
LIMITS = (
    "Classes in another order, and weights of another training of the same net, are detected by the hash alone.",
    "How accurate the net is can only be measured on its data set: fcn evaluate, make reproduce-SET.",
)


class CheckResult(StrEnum):
    """Whether a check of a weights file passed, failed, or could not be made."""

    PASS = "pass"
    FAIL = "fail"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class WeightsCheck:
    """The result of one check of a weights file, such as that of its hash.

    Attributes:
        name: what was checked, such as ``hash``.
        result: whether the check passed.
        got: what was found or, if the check was not made, why not; as text.
        want: what passes the check, as text.
    """

    name: str
    result: CheckResult
    got: str
    want: str

    def __str__(self) -> str:
        return f"{self.name:<16} {self.result:<11}  got {self.got}; want {self.want}"


@dataclass(frozen=True)
class Verification:
    """The results of all checks of a weights file.

    Attributes:
        net: the name of the net.
        file: the path of the file.
        format: the format of the file, such as ``caffemodel V1``.
        sha256: the SHA-256 of the file.
        origin: how the file was made, as far as the manifest or the file says; empty if it is not known.
        checks: the result of each check.
    """

    net: str
    file: str
    format: str
    sha256: str
    origin: str
    checks: Sequence[WeightsCheck]

    @property
    def result(self) -> CheckResult:
        """``FAIL`` if a check failed, else ``NOT_CHECKED`` if one was not made, else ``PASS``."""
        found = {check.result for check in self.checks}
        order = (CheckResult.FAIL, CheckResult.NOT_CHECKED)
        return next((result for result in order if result in found), CheckResult.PASS)

    def as_json(self, **more: Any) -> dict[str, Any]:
        """Return the results as a dict of JSON types.

        Args:
            more: further entries of the dict, such as the versions of packages.
        """
        fields = {"format": FORMAT_VERSION, "kind": "verification", "result": self.result}
        found = asdict(self)
        return {**fields, "file_format": found.pop("format"), **found, "limits": LIMITS, **more}

    def format_lines(self) -> list[str]:
        """Format the results as lines of text."""
        head = [f"{self.net}: {self.file}, {self.format}", f"  sha256 {self.sha256}"]
        head += [f"  origin: {self.origin}"] if self.origin else []
        return [*head, *(f"  {check}" for check in self.checks), *(f"  note: {text}" for text in LIMITS), self.result]


def passed_if(condition: bool, name: str, got: str, want: str) -> WeightsCheck:
    """Return the result of a check that passed if the condition is true, and failed otherwise.

    Args:
        condition: what the check requires.
        name: what was checked, such as ``hash``.
        got: what was found, as text.
        want: what passes the check, as text.
    """
    return WeightsCheck(name, CheckResult.PASS if condition else CheckResult.FAIL, got, want)


def not_checked(name: str, why: str, want: str) -> WeightsCheck:
    """Return the result of a check that could not be made.

    Args:
        name: what was to be checked.
        why: why the check was not made.
        want: what passes the check, as text.
    """
    return WeightsCheck(name, CheckResult.NOT_CHECKED, why, want)
