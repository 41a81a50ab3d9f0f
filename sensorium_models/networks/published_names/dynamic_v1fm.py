"""Names of Dynamic-V1FM.

Facts: its model card, section 5 (zhuyu-cs/Dynamic-VFM 5dc582a). Its checkpoints are those of
data-parallel training (`module.`).
"""

from typing import Any

import torch
from torch import Tensor

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names.gaussian import BASELINE_READOUT, OF_ANIMAL
from sensorium_models.networks.published_names.naming import Naming, Rule, Shape


def _constants(encoder: Encoder) -> dict[str, Tensor]:
    core: Any = encoder.core
    constants = {"core.transformer.drop_path.keep_prop": torch.tensor(1.0)}
    for number, block in enumerate(core.blocks):
        name = f"core.transformer.blocks.{number}.mha.relative_position_index"
        constants[name] = block.attention.relative_index
    return constants


def _as_convolution(shape: Shape) -> Shape:
    """One-by-one convolutions have a kernel dimension more; their biases have not."""
    return (*shape, 1) if len(shape) == 2 else shape


DYNAMIC_V1FM = Naming(
    rules=[
        Rule(
            r"core\.patch_embedding\.projection\.(?P<rest>.+)", "core.patch_embedding.proj.{rest}"
        ),
        Rule(r"core\.patch_embedding\.norm\.(?P<rest>.+)", "core.patch_embedding.norm.{rest}"),
        *(
            Rule(
                rf"core\.blocks\.(?P<block>\d+)\.{ours}(?P<rest>(\.[a-z]+)?)",
                f"core.transformer.blocks.{{block}}.{theirs}{{rest}}",
            )
            for ours, theirs in (
                (r"state_embedding\.layers\.0", "b-mlp.model.0"),
                (r"state_embedding\.layers\.2", "b-mlp.model.3"),
                (r"attention\.qkv", "mha.qkv"),
                (r"attention\.projection", "mha.proj"),
                (r"attention\.relative_bias", "mha.relative_position_bias_table"),
                (r"mlp\.widen", "mlp.linear1.0"),
                (r"mlp\.convolution", "mlp.dwconv.0.conv"),
                (r"mlp\.narrow", "mlp.linear2.0"),
            )
        ),
        Rule(
            rf"{OF_ANIMAL}\.scales\.(?P<scale>\d+)\.features",
            "readout.{animal}._features{scale}",
            lambda shape: (1, shape[0], 1, shape[1]),
        ),
        Rule(
            rf"{OF_ANIMAL}\.scales\.(?P<scale>\d+)\.refine\.(?P<rest>.+)",
            "readout.{animal}.up_refine{scale}.{rest}",
            _as_convolution,
        ),
        Rule(
            rf"{OF_ANIMAL}\.fusions\.(?P<levels>\d+)\.layers\.(?P<rest>.+)",
            "readout.{animal}.fusion_block{levels}.module.{rest}",
        ),
        *BASELINE_READOUT,
    ],
    key=lambda folder: folder,
    inert=_constants,
)
