"""The proof that comes with every answer."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sfumato._version import __version__


@dataclass(frozen=True)
class Report:
    """What was done, and how well the result agrees with the measurement.

    ``consistency_rmse_255`` is the RMSE between ``A`` of the result and the measurement, in units
    of 1/255, over the values that were measured.
    """

    task: str
    degradation: str
    consistency_rmse_255: float
    seam_score: float | None
    seam_band: tuple[float, float] | None
    tiles: int
    waves: int
    network_evaluations: int
    evaluations_per_tile: int
    levels: list[dict[str, object]]
    seconds: float
    width: int
    height: int
    settings: dict[str, object]
    model: str
    model_digest: str
    input_digest: str | None = None
    notes: list[str] = field(default_factory=list)
    version: str = __version__

    def with_notes(self, *notes: str) -> Report:
        """Return the report with further notes."""
        return replace(self, notes=[*self.notes, *notes])

    def to_json(self) -> str:
        """Return it as indented JSON; a number that JSON cannot say (infinity) becomes null."""
        return json.dumps(_sayable(asdict(self)), indent=2, allow_nan=False) + "\n"

    def write(self, path: Path, *, token: str = "") -> None:
        """Write it as JSON, whole or not at all; ``token`` is that of ``atomic_path``."""
        from sfumato.io import atomic_path

        with atomic_path(path, token=token) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")


def _sayable(value: object) -> object:
    """Replace numbers that JSON cannot say by None, however deep."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _sayable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(v) for v in value]
    return value
