"""The core that learns nothing: pixels, averaged over small squares.

It serves systems whose readout is a filter on the stimulus itself, such as the linear-nonlinear
control.
"""

from torch import Tensor
from torch.nn import functional

from sensorium_models.networks.encoder import Core


class PixelCore(Core):
    """Averages squares of pixels; (B, C, T, H, W) to (B, C, T, H // pool, W // pool).

    Rows and columns that do not fill a square are left out at the lower and right edge.
    """

    history_frames = 0

    def __init__(self, *, in_channels: int, frame_shape: tuple[int, int], pool: int) -> None:
        super().__init__()
        if type(pool) is not int or not 1 <= pool <= min(frame_shape):
            raise ValueError(
                f"pool must be a whole number from 1 to {min(frame_shape)}, the shorter side of a "
                f"frame, not {pool!r}"
            )
        self.pool = pool
        self.out_channels = in_channels
        self.out_shape = (frame_shape[0] // pool, frame_shape[1] // pool)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool3d(x, (1, self.pool, self.pool))
