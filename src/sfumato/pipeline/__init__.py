"""From an image and settings to a restored image."""

from sfumato.pipeline.report import Report
from sfumato.pipeline.restore import Advanced, Event, Result, Started, restore, stream
from sfumato.pipeline.settings import Settings, make_settings

__all__ = [
    "Advanced",
    "Event",
    "Report",
    "Result",
    "Settings",
    "Started",
    "make_settings",
    "restore",
    "stream",
]
