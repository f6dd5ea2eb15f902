"""The commands that make a study's report and its figures anew, as they are printed."""

from __future__ import annotations

from diascope.studies.results import StudyResults


def report_line(results: StudyResults, figure: str = "") -> str:
    """Return the command that makes the report, or one figure of it, from what is there."""
    line = results.regenerate.replace("study run", "study report", 1)
    return f"{line} --figure {figure}" if figure else line
