"""Networks: one residual U-Net for every model of the project, and published ones."""

from sfumato.nn.adm import ADMClassifier, ADMClassifierConfig
from sfumato.nn.drunet import DRUNet, DRUNetConfig
from sfumato.nn.ffdnet import FFDNet, FFDNetConfig
from sfumato.nn.inception import FIDInception
from sfumato.nn.refinement import RefinementConfig, RefinementNet, RefinementUNet
from sfumato.nn.resnet import ResNet, ResNetConfig
from sfumato.nn.rrdbnet import RRDBNet, RRDBNetConfig
from sfumato.nn.sr3 import SR3, seeded_sr3
from sfumato.nn.sr3_config import PRESETS, SR3Config
from sfumato.nn.unet import UNet, UNetConfig, seeded_unet
from sfumato.nn.widen import widened, with_linear_path

__all__ = [
    "PRESETS",
    "SR3",
    "ADMClassifier",
    "ADMClassifierConfig",
    "DRUNet",
    "DRUNetConfig",
    "FFDNet",
    "FFDNetConfig",
    "FIDInception",
    "RRDBNet",
    "RRDBNetConfig",
    "RefinementConfig",
    "RefinementNet",
    "RefinementUNet",
    "ResNet",
    "ResNetConfig",
    "SR3Config",
    "UNet",
    "UNetConfig",
    "seeded_sr3",
    "seeded_unet",
    "widened",
    "with_linear_path",
]
