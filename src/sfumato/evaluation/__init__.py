"""Studies of how well models and methods do."""

from sfumato.evaluation.candidates import Candidate, candidates
from sfumato.evaluation.crops import Crops, load_crops
from sfumato.evaluation.halving import Rung, plan_rungs
from sfumato.evaluation.methods import Comparison, Row, as_markdown, compare_methods
from sfumato.evaluation.schedule_search import (
    Event,
    Found,
    Measured,
    Planned,
    Search,
    search_schedule,
)
from sfumato.evaluation.sr3_samples import sample_crops
from sfumato.evaluation.stored import check_place, store_schedule

__all__ = [
    "Candidate",
    "Comparison",
    "Crops",
    "Event",
    "Found",
    "Measured",
    "Planned",
    "Row",
    "Rung",
    "Search",
    "as_markdown",
    "candidates",
    "check_place",
    "compare_methods",
    "load_crops",
    "plan_rungs",
    "sample_crops",
    "search_schedule",
    "store_schedule",
]
