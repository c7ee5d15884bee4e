"""How good, how faithful and how seamless a result is: plain functions of tensors in [0, 1].

- ``psnr``, ``psnr_luma``, ``ssim``, ``ShiftTolerantLPIPS``, ``LPIPS``: the distance from a
  reference picture.
- ``frechet_between``, ``kernel_distance``: the distance between two sets of pictures, by their
  features; ``PooledFeatures`` makes such, ``Projection`` leaves few of them.
- ``inception_score``: how clear and how various the classes of a set are.
- ``diversity``, ``pairwise``: how the samples of one picture differ; ``colour_bias``: by how much
  the mean colour is off.
- ``rmse``, ``consistency``: does the result still explain its measurement, ``A x = y``?
- ``seam_score``, ``seam_band``, ``seam_report``: can the borders of the tiles be seen?
  ``SeamMeter`` tells the same of a picture larger than memory.
"""

from sfumato.metrics.consistency import Consistency, consistency, rmse
from sfumato.metrics.features import Features, PooledAlexNet, PooledFeatures, Projection
from sfumato.metrics.frechet import (
    FeatureVectors,
    frechet_between,
    frechet_distance,
    moments,
    within_span,
)
from sfumato.metrics.inception_score import inception_score
from sfumato.metrics.kernel import kernel_distance
from sfumato.metrics.perceptual import LPIPS, ShiftTolerantLPIPS
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
from sfumato.metrics.spread import colour_bias, diversity, pairwise
from sfumato.metrics.ssim import ssim

__all__ = [
    "LPIPS",
    "Border",
    "Consistency",
    "FeatureVectors",
    "Features",
    "PooledAlexNet",
    "PooledFeatures",
    "Projection",
    "SeamMeter",
    "SeamReport",
    "ShiftTolerantLPIPS",
    "colour_bias",
    "consistency",
    "diversity",
    "frechet_between",
    "frechet_distance",
    "grid_borders",
    "inception_score",
    "kernel_distance",
    "moments",
    "pairwise",
    "psnr",
    "psnr_luma",
    "rmse",
    "seam_band",
    "seam_report",
    "seam_score",
    "ssim",
    "to_luma",
    "within_span",
]
