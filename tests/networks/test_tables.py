"""Tables that follow from sizes alone lie where they are used, after they were used once."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from sensorium_models.networks.cores.dwiseneuro import DwiseNeuroCore
from sensorium_models.networks.cores.dwiseneuro_blocks import with_positions
from sensorium_models.networks.cores.window_attention import WindowAttention


class Copies(TorchDispatchMode):
    """Counts what is copied from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self.count += args[0].device.type == "cpu" and out.device.type != "cpu"
        return out


def attention() -> nn.Module:
    return WindowAttention(channels=4, heads=2, window=(2, 3, 3)).to("meta")


def evaluated() -> Any:
    core = DwiseNeuroCore(
        in_channels=4,
        frame_shape=(7, 4),
        channels=[4, 4],
        strides=[1, 2],
        expansion=2,
        squeeze_reduction=2,
        spatial_kernel=3,
        temporal_kernel=3,
        drop_path=0,
        cortex_channels=[4],
        cortex_groups=1,
        cortex_drop_path=0,
    )
    return torch.no_grad()(core.eval().to("meta").forward)


@pytest.mark.parametrize(
    "make",
    [attention, lambda: with_positions, evaluated],
    ids=["windows", "positions", "evaluation"],
)
def test_no_table_is_copied_twice(make: Any) -> None:
    layer = make()
    x = torch.empty(1, 4, 5, 7, 4, device="meta")  # stands for a GPU: tensors without content
    with Copies() as first:
        layer(x)
    with Copies() as second:
        layer(x)
    assert first.count > 0
    assert second.count == 0
    if isinstance(layer, nn.Module):
        assert set(layer.state_dict()) == {
            "relative_bias",
            *(f"{part}.{kind}" for part in ("qkv", "projection") for kind in ("weight", "bias")),
        }
