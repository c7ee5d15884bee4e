"""How good, how faithful and how seamless a result is: plain functions of tensors in [0, 1].

- ``psnr``, ``psnr_luma``, ``ssim``, ``ShiftTolerantLPIPS``: the distance from a reference picture.
- ``rmse``, ``consistency``: does the result still explain its measurement, ``A x = y``?
- ``seam_score``, ``seam_band``, ``seam_report``: can the borders of the tiles be seen?
  ``SeamMeter`` tells the same of a picture larger than memory.
"""

from sfumato.metrics.consistency import Consistency, consistency, rmse
from sfumato.metrics.perceptual import ShiftTolerantLPIPS
from sfumato.metrics.psnr import psnr, psnr_luma, to_luma
from sfumato.metrics.seam import (
    Border,
    SeamMeter,
    SeamReport,
    grid_borders,
    seam_band,
    seam_report,
    seam_score,
)
from sfumato.metrics.ssim import ssim

__all__ = [
    "Border",
    "Consistency",
    "SeamMeter",
    "SeamReport",
    "ShiftTolerantLPIPS",
    "consistency",
    "grid_borders",
    "psnr",
    "psnr_luma",
    "rmse",
    "seam_band",
    "seam_report",
    "seam_score",
    "ssim",
    "to_luma",
]
