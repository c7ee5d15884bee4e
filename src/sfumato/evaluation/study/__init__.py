"""Can people tell results from photographs? The two-alternative forced choice study of SR3.

Saharia et al., Image Super-Resolution via Iterative Refinement (2021), section 4.1: two pictures
for 3 seconds, one the photograph, one generated; which was taken by a camera? The *fool rate* is
the share of answers that are wrong.
"""

from sfumato.evaluation.study.answers import (
    Answers,
    Collected,
    Excluded,
    Rules,
    Trial,
    collect,
    read_answers,
)
from sfumato.evaluation.study.make import Made, make_study
from sfumato.evaluation.study.rate_tables import as_csv, as_json, as_markdown
from sfumato.evaluation.study.rates import Rate, clustered, rates, wilson
from sfumato.evaluation.study.settings import StudySettings, load_words

__all__ = [
    "Answers",
    "Collected",
    "Excluded",
    "Made",
    "Rate",
    "Rules",
    "StudySettings",
    "Trial",
    "as_csv",
    "as_json",
    "as_markdown",
    "clustered",
    "collect",
    "load_words",
    "make_study",
    "rates",
    "read_answers",
    "wilson",
]
