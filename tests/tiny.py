"""Settings that make a network small enough for tests, shared by several of them."""

from typing import Any

# Of both ViV1Ts; the rest of their settings is that of their files.
ATTENTION: dict[str, Any] = {
    "channels": 8,
    "patch_pixels": 5,
    "heads": 2,
    "head_channels": 4,
    "feedforward_channels": 6,
    "spatial_blocks": 1,
    "temporal_blocks": 1,
}
