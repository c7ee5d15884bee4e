"""Studies of how well models do: the search for an SR3 model's inference schedule."""

from sfumato.evaluation.candidates import Candidate, candidates
from sfumato.evaluation.crops import Crops, load_crops
from sfumato.evaluation.halving import Rung, plan_rungs
from sfumato.evaluation.schedule_search import (
    Event,
    Found,
    Measured,
    Planned,
    Search,
    search_schedule,
)
from sfumato.evaluation.sr3_samples import measure, sample_crops
from sfumato.evaluation.stored import check_place, store_schedule

__all__ = [
    "Candidate",
    "Crops",
    "Event",
    "Found",
    "Measured",
    "Planned",
    "Rung",
    "Search",
    "candidates",
    "check_place",
    "load_crops",
    "measure",
    "plan_rungs",
    "sample_crops",
    "search_schedule",
    "store_schedule",
]
