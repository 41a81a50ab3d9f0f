"""What the original repositories call the tensors of our networks, and how they shape them.

Facts: tensor tables of the model cards (sinzlab/neuralpredictors a2055cd, lRomul/sensorium,
bryanlimy/ViV1T 765cf77, bryanlimy/ViV1T-closed-loop d2cbafd). One `Naming` per published network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sensorium_models.networks.encoder import Encoder

Shape = tuple[int, ...]

# Mouse number (of `dynamic29515-10-12-...`) to the letter of ViV1T and of the papers.
_LETTERS = {
    **{"29156": "A", "29228": "B", "29234": "C", "29513": "D", "29514": "E"},
    **{"29515": "F", "29623": "G", "29647": "H", "29712": "I", "29755": "J"},
}
# DwiseNeuro numbers its readouts: F-J, then A-E.
_DWISENEURO_ORDER = "FGHIJABCDE"


def _same(shape: Shape) -> Shape:
    return shape


@dataclass(frozen=True)
class Rule:
    """Which of our tensors (`ours`, a regular expression) has which original name and shape.

    `theirs` is a template of the expression's groups, or a function of them; the group `animal`
    becomes the animal's key there. `rows` spreads our first axis over tensors numbered {row}.
    """

    ours: str
    theirs: str | Callable[[Mapping[str, str]], str]
    shape: Callable[[Shape], Shape] = _same
    rows: bool = False

    def name(self, groups: Mapping[str, str]) -> str:
        """The original name."""
        return self.theirs(groups) if callable(self.theirs) else self.theirs.format(**groups)


@dataclass(frozen=True)
class Naming:
    """Names of one published network.

    `key` gives an animal's key from the folder of its recording. `inert` are tensors of the
    original that change no result (buffers of penalties, constants of attention), with their
    values; `ignored` are patterns of others, which no export writes. `container` is the entry of
    the checkpoint that holds the tensors, None if the file is nothing else.
    """

    rules: Sequence[Rule]
    key: Callable[[str], str]
    inert: Callable[[Encoder], dict[str, Tensor]] = field(default=lambda encoder: {})
    ignored: Sequence[str] = ()
    container: str | None = None


def naming_of(encoder: Encoder) -> Naming:
    """The naming of a network.

    Raises:
        ValueError: there is none for its core.
    """
    kind = type(encoder.core).__name__
    if kind not in NAMINGS:
        raise ValueError(
            f"there are no published names for the core {kind}; known are {', '.join(NAMINGS)}"
        )
    return NAMINGS[kind]


def mouse_letter(folder: str) -> str:
    """Letter of the mouse whose recording is in this folder.

    Raises:
        ValueError: it is none of the ten of SENSORIUM 2023.
    """
    found = re.match(r"dynamic(\d+)-", folder)
    if found is None or found[1] not in _LETTERS:
        raise ValueError(
            f"recording {folder} is none of the ten of SENSORIUM 2023, of which the published "
            "network has readouts"
        )
    return _LETTERS[found[1]]


def _mouse_index(folder: str) -> str:
    return str(_DWISENEURO_ORDER.index(mouse_letter(folder)))


def _gaussian(readout: str, shifter: str, *, features: Rule) -> list[Rule]:
    """Gaussian readout and shifter; `readout` and `shifter` are the original folders."""
    return [
        Rule(r"readouts\.(?P<animal>[^.]+)\.sigma", f"{readout}.{{animal}}.sigma", _led_by_one),
        features,
        Rule(
            r"readouts\.(?P<animal>[^.]+)\.position_network\.(?P<rest>.+)",
            f"{readout}.{{animal}}.mu_transform.{{rest}}",
        ),
        # A dropout of zero stands before the last layer of the original.
        Rule(
            r"readouts\.(?P<animal>[^.]+)\.state_encoder\.3\.(?P<rest>.+)",
            f"{readout}.{{animal}}.state_encoder.4.{{rest}}",
        ),
        Rule(
            r"readouts\.(?P<animal>[^.]+)\.(?P<rest>bias|source_grid|state_encoder\..+)",
            f"{readout}.{{animal}}.{{rest}}",
        ),
        Rule(
            r"shifters\.(?P<animal>[^.]+)\.layers\.(?P<rest>.+)",
            f"{shifter}.{{animal}}.mlp.{{rest}}",
        ),
    ]


def _led_by_one(shape: Shape) -> Shape:
    return (1, *shape)


_BASELINE_READOUT = _gaussian(
    "readout",
    "shifter",
    features=Rule(
        r"readouts\.(?P<animal>[^.]+)\.features",
        "readout.{animal}._features",
        lambda shape: (1, shape[0], 1, shape[1]),
    ),
)
_VIV1T_READOUT = _gaussian(
    "readouts",
    "shifters",
    features=Rule(
        r"readouts\.(?P<animal>[^.]+)\.features", "readouts.{animal}.features", _led_by_one
    ),
)


def _factorized_convolution(groups: Mapping[str, str]) -> str:
    # The first layer's have no number of their own, as published.
    number = "" if groups["layer"] == "0" else f"_{groups['layer']}"
    return f"core.features.layer{groups['layer']}.conv_{groups['kind']}{number}.{groups['rest']}"


_FACTORIZED = Naming(
    rules=[
        Rule(
            r"core\.layers\.(?P<layer>\d+)\.(?P<kind>spatial|temporal)\.(?P<rest>.+)",
            _factorized_convolution,
        ),
        Rule(
            r"core\.layers\.(?P<layer>\d+)\.norm\.(?P<rest>.+)",
            "core.features.layer{layer}.norm.{rest}",
        ),
        *_BASELINE_READOUT,
    ],
    key=lambda folder: folder,
    inert=lambda encoder: {
        "core._input_weight_regularizer.laplace.filter": _buffer(encoder, "laplace"),
        "core.temporal_regularizer.laplace.filter": _buffer(encoder, "temporal_laplace"),
    },
)

_HERMITE = "core.features.layer{layer}.hermite_conv"
_GRU = Naming(
    rules=[
        Rule(r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.coefficients", f"{_HERMITE}.coeffs"),
        Rule(
            r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.basis", f"{_HERMITE}.rotate_hermite.H"
        ),
        Rule(
            r"core\.frame_core\.convolutions\.(?P<layer>\d+)\.rotations",
            f"{_HERMITE}.rotate_hermite.Rs.{{row}}",
            rows=True,
        ),
        Rule(
            r"core\.frame_core\.norms\.(?P<layer>\d+)\.norm\.(?P<rest>.+)",
            "core.features.layer{layer}.norm.batch_norm.{rest}",
        ),
        Rule(r"core\.gru\.(?P<rest>.+)", "gru_module.gru.{rest}"),
        *_BASELINE_READOUT,
    ],
    key=lambda folder: folder,
    inert=lambda encoder: {
        "core._input_weights_regularizer.laplace.filter": _buffer(encoder, "frame_core.laplace")
    },
)

_BLOCK = "core.vivit.{part}_transformer.blocks.{block}"
_VIV1T_BLOCKS = [
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


def _viv1t_constants(encoder: Encoder) -> dict[str, Tensor]:
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
    constants = _viv1t_constants(encoder)
    for part in ("spatial", "temporal"):
        rotary = getattr(core, f"{part}_rotary")
        for number in range(len(getattr(core, part).blocks)):
            name = f"{_BLOCK.format(part=part, block=number)}.rotary_position_embedding"
            constants[f"{name}.inv_freq"] = rotary.frequencies
            constants[f"{name}.scale"] = rotary.scale
    return constants


_VIV1T = Naming(
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
        *_VIV1T_BLOCKS,
        *_VIV1T_READOUT,
    ],
    key=mouse_letter,
    inert=_viv1t_constants,
    container="model",
)

_VIV1T_2025 = Naming(
    rules=[
        Rule(r"core\.patches\.patch_norm\.(?P<rest>.+)", "core.tokenizer.tokenizer.norm.{rest}"),
        Rule(r"core\.patches\.linear\.(?P<rest>.+)", "core.tokenizer.tokenizer.linear.{rest}"),
        Rule(r"core\.patches\.norm\.(?P<rest>.+)", "core.tokenizer.norm.{rest}"),
        Rule(r"core\.spatial_registers", "core.vivit.reg_s_tokens"),
        Rule(r"core\.temporal_registers", "core.vivit.reg_t_tokens"),
        *_VIV1T_BLOCKS,
        *_VIV1T_READOUT,
    ],
    key=mouse_letter,
    inert=_rotary_constants,
    ignored=["core.vivit.*_transformer.blocks.*.drop_path?.*", "output_activation.*"],
    container="model",
)


def _dwiseneuro_block(theirs: str) -> Callable[[Mapping[str, str]], str]:
    """Blocks alternate with positional encodings, which have no parameter."""
    return lambda groups: f"core.blocks.{2 * int(groups['block']) + 1}.{theirs.format(**groups)}"


def _dwiseneuro_constants(encoder: Encoder) -> dict[str, Tensor]:
    constants = {}
    core: Any = encoder.core
    for number, block in enumerate(core.blocks):
        channels = block.expand.in_channels
        group = 2 * -(-channels // 6)
        powers = torch.arange(0, group, 2).float() / group
        constants[f"core.blocks.{2 * number}.inv_freq"] = 1.0 / 10_000**powers
    return constants


_DWISENEURO = Naming(
    rules=[
        Rule(r"core\.stem\.weight", "core.stem.0.weight"),
        Rule(r"core\.stem_norm\.(?P<rest>.+)", "core.stem.1.bn.{rest}"),
        *(
            Rule(
                rf"core\.blocks\.(?P<block>\d+)\.{ours}\.(?P<rest>.+)",
                _dwiseneuro_block(f"{theirs}.{{rest}}"),
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
            r"readouts\.(?P<animal>[^.]+)\.convolution\.(?P<rest>.+)",
            "readouts.{animal}.layer.1.{rest}",
        ),
    ],
    key=_mouse_index,
    inert=_dwiseneuro_constants,
    container="nn_state_dict",
)

# By class of the core.
NAMINGS = {
    "FactorizedCore": _FACTORIZED,
    "EquivariantGRUCore": _GRU,
    "ViV1TCore": _VIV1T,
    "CausalViV1TCore": _VIV1T_2025,
    "DwiseNeuroCore": _DWISENEURO,
}


def _buffer(encoder: Encoder, name: str) -> Tensor:
    return encoder.core.get_buffer(name)
