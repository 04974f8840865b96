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
    "How accurate the net is can only be measured on its data set: tools/evaluate.py, make reproduce-SET.",
)


class CheckResult(StrEnum):
    """The result of one check."""

    PASS = "pass"
    FAIL = "fail"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class WeightsCheck:
    """One check of a weights file.

    Attributes:
        name: what was checked.
        result: whether it passed.
        got: what was found or, if it was not checked, why not.
        want: what passes.
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
        origin: how the file was made, as far as the manifest or the file says.
        checks: the checks.
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
        """Return the results for JSON, with further fields such as the versions of packages."""
        fields = {"format": FORMAT_VERSION, "kind": "verification", "result": self.result}
        found = asdict(self)
        return {**fields, "file_format": found.pop("format"), **found, "limits": LIMITS, **more}

    def format_lines(self) -> list[str]:
        """Format the results as lines of text."""
        head = [f"{self.net}: {self.file}, {self.format}", f"  sha256 {self.sha256}"]
        head += [f"  origin: {self.origin}"] if self.origin else []
        return [*head, *(f"  {check}" for check in self.checks), *(f"  note: {text}" for text in LIMITS), self.result]


def passed_if(condition: bool, name: str, got: str, want: str) -> WeightsCheck:
    """Return a check that passes if the condition is true, and fails otherwise."""
    return WeightsCheck(name, CheckResult.PASS if condition else CheckResult.FAIL, got, want)


def not_checked(name: str, why: str, want: str) -> WeightsCheck:
    """Return a check that was not made."""
    return WeightsCheck(name, CheckResult.NOT_CHECKED, why, want)
