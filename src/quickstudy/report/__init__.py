"""The report of a run: one HTML file with all pictures inside."""

from quickstudy.report.html import write

__all__ = ["write"]
