"""The report of a study: a page, a Markdown file, figures and their numbers."""

from diascope.report.study.page import write_study_figure, write_study_report
from diascope.report.study.summary import write_summary

__all__ = ["write_study_figure", "write_study_report", "write_summary"]
