"""Names of DwiseNeuro.

Facts: its model card, section 2.7 (lRomul/sensorium 6849050).
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sensorium_models.networks.encoder import Encoder
from sensorium_models.networks.published_names.gaussian import OF_ANIMAL
from sensorium_models.networks.published_names.naming import Naming, Rule, mouse_letter

# DwiseNeuro numbers its readouts: F-J, then A-E.
_READOUTS = "FGHIJABCDE"


def _mouse_index(folder: str) -> str:
    return str(_READOUTS.index(mouse_letter(folder)))


def _block(theirs: str) -> Callable[[Mapping[str, str]], str]:
    """Blocks alternate with positional encodings, which have no parameter."""
    return lambda groups: f"core.blocks.{2 * int(groups['block']) + 1}.{theirs.format(**groups)}"


def _constants(encoder: Encoder) -> dict[str, Tensor]:
    constants = {}
    core: Any = encoder.core
    for number, block in enumerate(core.blocks):
        channels = block.expand.in_channels
        group = 2 * -(-channels // 6)
        powers = torch.arange(0, group, 2).float() / group
        constants[f"core.blocks.{2 * number}.inv_freq"] = 1.0 / 10_000**powers
    return constants


DWISENEURO = Naming(
    rules=[
        Rule(r"core\.stem\.weight", "core.stem.0.weight"),
        Rule(r"core\.stem_norm\.(?P<rest>.+)", "core.stem.1.bn.{rest}"),
        *(
            Rule(
                rf"core\.blocks\.(?P<block>\d+)\.{ours}\.(?P<rest>.+)",
                _block(f"{theirs}.{{rest}}"),
            )
            for ours, theirs in (
                ("expand", "conv_pw.0"),
                ("expand_norm", "conv_pw.1.bn"),
                ("spatial", "spat_covn_dw.0"),
                ("spatial_norm", "spat_covn_dw.1.bn"),
                ("temporal", "temp_covn_dw.0"),
                ("temporal_norm", "temp_covn_dw.1.bn"),
                ("squeeze", "se.conv_reduce"),
                ("excite", "se.conv_expand"),
                ("project", "conv_pwl.0"),
                ("project_norm", "conv_pwl.1.bn"),
                ("shortcut_norm", "bn_sc.bn"),
            )
        ),
        Rule(
            r"core\.cortex\.(?P<layer>\d+)\.convolution\.weight",
            "cortex.layers.{layer}.conv.weight",
        ),
        Rule(
            r"core\.cortex\.(?P<layer>\d+)\.norm\.(?P<rest>.+)",
            "cortex.layers.{layer}.bn.bn.{rest}",
        ),
        Rule(
            r"core\.cortex\.(?P<layer>\d+)\.shortcut_norm\.(?P<rest>.+)",
            "cortex.layers.{layer}.bn_sc.bn.{rest}",
        ),
        Rule(
            rf"{OF_ANIMAL}\.convolution\.(?P<rest>.+)",
            "readouts.{animal}.layer.1.{rest}",
        ),
    ],
    key=_mouse_index,
    inert=_constants,
    container="nn_state_dict",
)
