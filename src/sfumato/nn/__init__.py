"""Networks: one residual U-Net, for every model of the project."""

from sfumato.nn.unet import UNet, UNetConfig, seeded_unet

__all__ = ["UNet", "UNetConfig", "seeded_unet"]
