"""matplotlib, without its global state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, cast

from sfumato.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Told apart with any colour vision, on light and on dark (after Paul Tol's "bright").
COLOURS = ("#4477aa", "#ee6677", "#228833", "#b8a032", "#44a8c8", "#aa3377", "#8a8a8a", "#e07b39")
MARKERS = "osD^vPX*"
INK, QUIET, FRAME = "#1d1d1b", "#63635e", "#e2571e"
_STYLE: Mapping[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "svg.hashsalt": "sfumato",
    "text.parse_math": False,
}


@contextmanager
def style(ink: str = INK, quiet: str = QUIET) -> Iterator[None]:
    """Draw in sfumato's way: ``ink`` for text, ``quiet`` for axes and grids.

    Raises:
        SettingsError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise SettingsError(
            "plots and sheets need matplotlib, which is not installed",
            do="pip install 'sfumato[evaluation]', or make the page alone with --page-only",
        ) from error
    colours = {"text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": quiet,
               "xtick.color": quiet, "ytick.color": quiet, "grid.color": quiet}  # fmt: skip
    with mpl.rc_context({**_STYLE, **cast("Mapping[Any, Any]", colours)}):
        yield


def figure(width: float, height: float, *, layout: Literal["constrained"] | None = None) -> Figure:
    """Return an empty figure, in inches of 100 pixels."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=100, layout=layout)
