"""The report of a study: a page, a Markdown file, figures and their numbers."""

from diascope.report.study.markdown import write_summary
from diascope.report.study.page import write_study_figure, write_study_report

__all__ = ["write_study_figure", "write_study_report", "write_summary"]
