"""A comparison to look at: a page in one file, sheets of pictures, and plots."""

from sfumato.evaluation.report.page import Page, write_page
from sfumato.evaluation.report.plots import svg_plots, write_plots
from sfumato.evaluation.report.run import Run, read_run
from sfumato.evaluation.report.sheets import write_sheets

__all__ = [
    "Page",
    "Run",
    "read_run",
    "svg_plots",
    "write_page",
    "write_plots",
    "write_sheets",
]
