"""The report: one self-contained page about a study."""

from tuner.report.page import write_report

__all__ = ["write_report"]
