"""DDNM: the null-space part of the estimate, the range-space part of the measurement."""

from __future__ import annotations

from typing import final

from typing_extensions import override

from sfumato._typing import Images
from sfumato.diffusion.guidance import Guidance, Step
from sfumato.guidance.measurement import Measurement


@final
class DDNM(Guidance):
    """``x̂_0 = x_0 − A⁺ (A x_0 − y)``  (arXiv 2212.00490, eq. 9), so that ``A x̂_0 = y``.

    For measurements without noise. Any sampler.
    """

    def __init__(self, measurement: Measurement) -> None:
        self.m = measurement

    @override
    def correct(self, x_0: Images, step: Step) -> Images:
        A, y = self.m.A, self.m.y
        return x_0 + A.pinv(y - A(x_0))
