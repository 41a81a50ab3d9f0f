"""Names of ViV1T, of 2023 and of 2025.

Facts: its model card, section A5 and part B (bryanlimy/ViV1T 765cf77, and ViV1T-closed-loop d2cbafd
of the same authors).
"""

from typing import Any

import torch
from torch import Tensor

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names.gaussian import OF_ANIMAL, gaussian, led_by_one
from sensorium_models.networks.published_names.naming import Naming, Rule, mouse_letter

_READOUT = gaussian(
    "readouts",
    "shifters",
    features=Rule(rf"{OF_ANIMAL}\.features", "readouts.{animal}.features", led_by_one),
)

_BLOCK = "core.vivit.{part}_transformer.blocks.{block}"
_BLOCKS = [
    Rule(
        r"core\.(?P<part>spatial|temporal)\.blocks\.(?P<block>\d+)\.norm\.(?P<rest>.+)",
        f"{_BLOCK}.norm.{{rest}}",
    ),
    Rule(
        r"core\.(?P<part>spatial|temporal)\.blocks\.(?P<block>\d+)\.fused\.weight",
        f"{_BLOCK}.fused_linear.weight",
    ),
    Rule(
        r"core\.(?P<part>spatial|temporal)\.blocks\.(?P<block>\d+)\.attention_out\.weight",
        f"{_BLOCK}.attn_out.weight",
    ),
    Rule(
        r"core\.(?P<part>spatial|temporal)\.blocks\.(?P<block>\d+)\.feedforward_out\.weight",
        f"{_BLOCK}.ff_out.2.weight",
    ),
]


def _constants(encoder: Encoder) -> dict[str, Tensor]:
    """Scalars that every block carries along: scale of attention, kept part of the paths."""
    core: Any = encoder.core
    constants = {"core.vivit.reg_scale": torch.tensor(0.0)}
    for part in ("spatial", "temporal"):
        for number, block in enumerate(getattr(core, part).blocks):
            name = _BLOCK.format(part=part, block=number)
            constants[f"{name}.scale"] = torch.tensor(block.settings.head_channels**-0.5)
            kept = torch.tensor(1 - block.settings.drop_path)
            constants |= {f"{name}.drop_path{path}.keep_prob": kept for path in (1, 2)}
    return constants


def _rotary_constants(encoder: Encoder) -> dict[str, Tensor]:
    core: Any = encoder.core
    constants = _constants(encoder)
    for part in ("spatial", "temporal"):
        rotary = getattr(core, f"{part}_rotary")
        for number in range(len(getattr(core, part).blocks)):
            name = f"{_BLOCK.format(part=part, block=number)}.rotary_position_embedding"
            constants[f"{name}.inv_freq"] = rotary.frequencies
            constants[f"{name}.scale"] = rotary.scale
    return constants


VIV1T = Naming(
    rules=[
        Rule(
            r"core\.spatial_positions",
            "core.vivit.tokenizer.spatial_pos_embedding",
            lambda shape: (1, 1, *shape),
        ),
        Rule(
            r"core\.temporal_positions",
            "core.vivit.tokenizer.temporal_pos_embedding",
            lambda shape: (1, shape[0], 1, shape[1]),
        ),
        Rule(r"core\.patches\.patch_norm\.(?P<rest>.+)", "core.vivit.tokenizer.tokenizer.1.{rest}"),
        Rule(r"core\.patches\.linear\.(?P<rest>.+)", "core.vivit.tokenizer.tokenizer.2.{rest}"),
        Rule(r"core\.patches\.norm\.(?P<rest>.+)", "core.vivit.tokenizer.tokenizer.3.{rest}"),
        *_BLOCKS,
        *_READOUT,
    ],
    key=mouse_letter,
    inert=_constants,
    container="model",
)

VIV1T_2025 = Naming(
    rules=[
        Rule(r"core\.patches\.patch_norm\.(?P<rest>.+)", "core.tokenizer.tokenizer.norm.{rest}"),
        Rule(r"core\.patches\.linear\.(?P<rest>.+)", "core.tokenizer.tokenizer.linear.{rest}"),
        Rule(r"core\.patches\.norm\.(?P<rest>.+)", "core.tokenizer.norm.{rest}"),
        Rule(r"core\.spatial_registers", "core.vivit.reg_s_tokens"),
        Rule(r"core\.temporal_registers", "core.vivit.reg_t_tokens"),
        *_BLOCKS,
        *_READOUT,
    ],
    key=mouse_letter,
    inert=_rotary_constants,
    ignored=["core.vivit.*_transformer.blocks.*.drop_path?.*", "output_activation.*"],
    container="model",
)
