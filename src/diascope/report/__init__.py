"""The self-contained HTML report of an audit."""

from diascope.report.html import write_report

__all__ = ["write_report"]
