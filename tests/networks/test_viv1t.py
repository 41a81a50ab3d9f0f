"""Both ViV1T against loops written from their model card, and what sets them apart."""

import copy
import math

import numpy as np
import pytest
import torch

from sensorium_models.networks.cores.attention import BlockSettings, ParallelBlock, Transformer
from sensorium_models.networks.cores.patches import PatchEmbedding
from sensorium_models.networks.cores.rotary import RotaryPositions
from sensorium_models.networks.cores.viv1t import ViV1TCore
from sensorium_models.networks.cores.viv1t_causal import CausalViV1TCore
from sensorium_models.networks.readouts.gaussian import GaussianReadout
from sensorium_models.networks.readouts.gaussian_state import GaussianStateReadout

SIZES = {
    "channels": 6,
    "patch_frames": 3,
    "patch_pixels": 4,
    "patch_stride": 2,
    "spatial_blocks": 2,
    "temporal_blocks": 2,
    "heads": 2,
    "head_channels": 4,
    "feedforward_channels": 5,
    "patch_dropout": 0.1,
    "attention_dropout": 0.1,
    "feedforward_dropout": 0.1,
    "drop_path": 0.1,
}
OF_2023 = {**SIZES, "longest_clip_frames": 8}
OF_2025 = {
    **SIZES,
    "nominal_clip_frames": 5,
    "registers": 3,
    "time_registers": "last",
    "divide_keys": False,
}
WITHOUT_DROPOUT = dict.fromkeys(
    ("patch_dropout", "attention_dropout", "feedforward_dropout", "drop_path"), 0.0
)


def small(kind, published, **changes):
    torch.manual_seed(0)
    core = kind(in_channels=2, frame_shape=(7, 9), **{**published, **changes})
    for name, parameter in core.named_parameters():
        # Away from ones, zeros and weights of 0.02, with which little would be seen.
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, std=0.5)
        elif "blocks" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    return core.eval()


def double(parameter):
    return parameter.detach().double().numpy()


def layer_norm(x, norm):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * double(norm.weight) + double(norm.bias)


def patches_by_hand(x, embedding, time, size, stride):
    """Vectors (c, pt, ph, pw) of whole patches, LN, Linear, LN; (T', h, w, D)."""
    _, frames, height, width = x.shape
    rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
    tokens = np.zeros((frames - time + 1, rows, columns, len(embedding.linear.bias)))
    for t in range(frames - time + 1):
        for i in range(rows):
            for j in range(columns):
                patch = x[
                    :, t : t + time, i * stride : i * stride + size, j * stride : j * stride + size
                ]
                vector = layer_norm(patch.reshape(-1), embedding.patch_norm)
                token = double(embedding.linear.weight) @ vector + double(embedding.linear.bias)
                tokens[t, i, j] = layer_norm(token, embedding.norm)
    return tokens


def rotated_by_hand(x, length, nominal):
    """Card, part B: x (N, d), of which the first `length` tokens have positions."""
    d = x.shape[1]
    x = x.copy()
    n0 = max(nominal, length)
    for t in range(length):
        for j in range(d // 2):
            angle = t * 10_000 ** (-2 * j / d)
            scale = ((2 * j + 0.4 * d) / (1.4 * d)) ** ((t - n0 // 2) / 512)
            first, second = x[t, j], x[t, j + d // 2]
            x[t, j] = (first * math.cos(angle) - second * math.sin(angle)) * scale
            x[t, j + d // 2] = (second * math.cos(angle) + first * math.sin(angle)) * scale
    return x


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def block_by_hand(x, block, activation, turn, causal):
    """x (N, D); heads of 4."""
    h = layer_norm(x, block.norm)
    fused = h @ double(block.fused.weight).T
    q, k, v, f = np.split(fused, [8, 16, 24], axis=1)
    attended = np.zeros_like(q)
    for head in range(2):
        columns = slice(4 * head, 4 * head + 4)
        query, key = turn(q[:, columns]), turn(k[:, columns])
        for n in range(len(x)):
            seen = n + 1 if causal else len(x)
            scores = key[:seen] @ query[n] / math.sqrt(4)
            weights = np.exp(scores - scores.max())
            attended[n, columns] = weights / weights.sum() @ v[:seen, columns]
    return (
        x
        + attended @ double(block.attention_out.weight).T
        + activation(f) @ double(block.feedforward_out.weight).T
    )


def transformer_by_hand(x, transformer, activation, turn=lambda part: part, causal=False):
    for block in transformer.blocks:
        x = block_by_hand(x, block, activation, turn, causal)
    return x


def test_competition_core_equals_the_card_in_plain_numpy():
    core = small(ViV1TCore, OF_2023)
    x = torch.randn(2, 2, 7, 7, 9)
    got = core(x).detach().numpy()
    assert (core.history_frames, core.out_shape) == (2, (2, 3))
    assert got.shape == (2, 6, 5, 2, 3)
    for clip in range(2):
        tokens = patches_by_hand(double(x[clip]), core.patches, 3, 4, 2).reshape(5, 6, 6)
        tokens = tokens + double(core.spatial_positions)
        tokens = tokens + double(core.temporal_positions)[:5, None]
        tokens = np.array([transformer_by_hand(frame, core.spatial, gelu) for frame in tokens])
        for place in range(6):
            tokens[:, place] = transformer_by_hand(tokens[:, place], core.temporal, gelu)
        expected = tokens.reshape(5, 2, 3, 6).transpose(3, 0, 1, 2)
        np.testing.assert_allclose(got[clip], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frames", [4, 7])  # shorter and longer than nominal_clip_frames
def test_core_of_2025_equals_the_card_in_plain_numpy(frames):
    core = small(CausalViV1TCore, OF_2025)
    x = torch.randn(1, 2, frames, 7, 9)
    got = core(x).detach().numpy()[0]
    # 7 x 9 pixels: ceil(7 / 2) = 4 and ceil(9 / 2) = 5 patches; 3 more rows and columns.
    assert (core.history_frames, core.out_shape) == (0, (4, 5))
    padded = np.pad(double(x[0]), ((0, 0), (2, 0), (1, 2), (1, 2)))
    tokens = patches_by_hand(padded, core.patches, 3, 4, 2).reshape(frames, 20, 6)

    def relu(values):
        return np.maximum(values, 0)

    def turn(length, nominal):
        return lambda part: rotated_by_hand(part, length, nominal)

    for t in range(frames):
        row = np.concatenate([tokens[t], double(core.spatial_registers)])
        row = transformer_by_hand(row, core.spatial, relu, turn(20, 20))
        tokens[t] = row[:20]
    for place in range(20):
        row = np.concatenate([tokens[:, place], double(core.temporal_registers)])
        row = transformer_by_hand(row, core.temporal, relu, turn(frames, 5), causal=True)
        tokens[:, place] = row[:frames]
    expected = tokens.reshape(frames, 4, 5, 6).transpose(3, 0, 1, 2)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_registers_in_time_have_no_effect_unless_they_come_first():
    x = torch.randn(1, 2, 4, 7, 9)
    for where, registers, matters in (
        ("last", "temporal_registers", False),
        ("last", "spatial_registers", True),
        ("first", "temporal_registers", True),
    ):
        core = small(CausalViV1TCore, OF_2025, time_registers=where)
        with torch.no_grad():
            before = core(x)
            getattr(core, registers).add_(torch.randn_like(core.spatial_registers))
            assert torch.equal(core(x), before) != matters


def test_first_registers_are_seen_by_every_frame_and_see_none():
    core = small(CausalViV1TCore, OF_2025, time_registers="first", spatial_blocks=0)
    x = torch.randn(1, 2, 4, 7, 9)
    other = x.clone()
    other[:, :, 2:] += 1
    with torch.no_grad():
        assert torch.equal(core(x)[:, :, :2], core(other)[:, :, :2])
        assert core(x[:, :, :1]).shape == (1, 6, 1, 4, 5)


def test_divided_keys_make_attention_a_function_of_distance():
    for divide_keys in (True, False):
        turn_query, turn_key = RotaryPositions(length=40, head_channels=8, divide_keys=divide_keys)(
            40, after=2
        )
        query, key = torch.randn(2, 8)
        scores = turn_query(query.expand(42, 8)) @ turn_key(key.expand(42, 8)).T
        near = torch.stack([scores.diagonal(-3)[i] for i in (0, 15, 36)])
        assert bool(torch.allclose(near, near[:1], rtol=1e-4)) == divide_keys
        torch.testing.assert_close(scores[40:, 40:], (query @ key).expand(2, 2))  # not turned


def test_published_grid_and_padding():
    core = CausalViV1TCore(
        in_channels=1,
        frame_shape=(36, 64),
        **{**OF_2025, "patch_pixels": 7, "patch_frames": 13},
    )
    assert core.padding == (2, 3, 2, 3, 12, 0)
    assert core.out_shape == (18, 32)


def test_patch_statistics_survive_a_large_constant():
    """Grey frames beside behaviour of another size: a variance by squares must not suffer."""
    torch.manual_seed(1)
    embedding = PatchEmbedding(in_channels=2, frames=3, pixels=4, stride=2, out_channels=6)
    torch.nn.init.normal_(embedding.patch_norm.weight)
    x = 0.01 * torch.randn(1, 2, 4, 7, 9)
    x[:, 1] += 30
    expected = patches_by_hand(double(x[0]), embedding, 3, 4, 2)
    np.testing.assert_allclose(embedding(x)[0].detach(), expected, atol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 3.0, 10.0])
def test_low_precision_rounds_patches_no_worse_than_the_published_order(offset):
    """Published: LayerNorm in float32, then a matrix in bfloat16, wherever the patches lie."""
    torch.manual_seed(1)
    embedding = PatchEmbedding(in_channels=3, frames=5, pixels=7, stride=2, out_channels=24)
    torch.nn.init.normal_(embedding.patch_norm.weight, 1, 0.1)
    x = offset + torch.randn(1, 3, 12, 11, 13)  # patches have a standard deviation of one

    def in_published_order(x, embedding):
        patches = x.unfold(2, 5, 1).unfold(3, 7, 2).unfold(4, 7, 2)  # (B, C, T', h, w, 5, 7, 7)
        vectors = patches.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4)
        return embedding.norm(embedding.linear(embedding.patch_norm(vectors)))

    exact = in_published_order(x.double(), copy.deepcopy(embedding).double())

    def error(tokens):
        return float((tokens.double() - exact).square().mean().sqrt())

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert error(embedding(x)) <= error(in_published_order(x, embedding))


def test_dropout_of_2023_hits_numbers_and_that_of_2025_hits_tokens():
    alone = {**WITHOUT_DROPOUT, "patch_dropout": 0.5, "spatial_blocks": 0, "temporal_blocks": 0}
    x = torch.randn(2, 2, 6, 7, 9)
    core = small(ViV1TCore, OF_2023, **alone)
    with torch.no_grad():
        positions = (
            core.spatial_positions.unflatten(0, (2, 3)) + core.temporal_positions[:4, None, None]
        ).permute(3, 0, 1, 2)
        kept = core(x) - positions
        dropped = core.train()(x) - positions
    zero = dropped.abs() < 1e-6
    torch.testing.assert_close(dropped[~zero], 2 * kept[~zero], rtol=1e-4, atol=1e-5)
    of_token = zero.float().mean(dim=1)
    assert ((of_token > 0) & (of_token < 1)).any()

    core = small(CausalViV1TCore, OF_2025, **alone)
    with torch.no_grad():
        kept, dropped = core(x), core.train()(x)
    of_token = (dropped == 0).float().mean(dim=1)
    assert set(of_token.unique().tolist()) == {0.0, 1.0}
    assert 0.3 < of_token.mean() < 0.7  # 240 tokens; five standard deviations are 0.16
    torch.testing.assert_close(dropped[dropped != 0], 2 * kept[dropped != 0])


def test_paths_are_dropped_by_row_and_independently():
    settings = BlockSettings(
        channels=6,
        heads=2,
        head_channels=4,
        feedforward_channels=5,
        activation="relu",
        attention_dropout=0.0,
        feedforward_dropout=0.0,
        drop_path=0.5,
    )
    torch.manual_seed(2)
    block = ParallelBlock(settings)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(64, 3, 6)
    with torch.no_grad():
        *_, features = block.fused(block.norm(x)).split(block.sizes, dim=-1)
        feedforward = block.feedforward_out(torch.relu(features))
        attention = block.eval()(x) - x - feedforward
        change = block.train()(x) - x
    seen = set()
    for row in range(64):
        for a in (0, 2):
            for m in (0, 2):
                expected = a * attention[row] + m * feedforward[row]
                if torch.allclose(change[row], expected, atol=1e-4):
                    seen.add((a, m))
                    break
            else:
                continue
            break
        else:
            raise AssertionError(f"row {row} is none of the four")
    assert seen == {(0, 0), (0, 2), (2, 0), (2, 2)}  # 64 rows miss one with probability 4e-8


@pytest.mark.parametrize("recompute", [False, True])
def test_pieces_and_recomputation_change_neither_values_nor_gradients(recompute):
    settings = BlockSettings(
        channels=6,
        heads=2,
        head_channels=4,
        feedforward_channels=5,
        activation="gelu",
        attention_dropout=0.0,
        feedforward_dropout=0.0,
        drop_path=0.0,
    )
    torch.manual_seed(3)
    plain = Transformer(settings, blocks=2)
    pieces = Transformer(settings, blocks=2, recompute=recompute)
    pieces.load_state_dict(plain.state_dict())
    pieces.tokens_at_once = 10  # two rows of four tokens
    results = []
    for transformer in (plain, pieces):
        x = torch.linspace(-1, 1, 120).reshape(5, 4, 6).requires_grad_()
        y = transformer(x)
        y.square().sum().backward()
        with torch.no_grad():
            torch.testing.assert_close(transformer(x), y.detach())
        results.append([y.detach(), x.grad, *(p.grad for p in transformer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_published_initialisation():
    torch.manual_seed(4)
    core = ViV1TCore(
        in_channels=5,
        frame_shape=(36, 64),
        **{**OF_2023, "channels": 64, "heads": 3, "head_channels": 48},
    )
    block = core.spatial.blocks[0]
    assert block.fused.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert core.spatial_positions.std().item() == pytest.approx(1, rel=0.05)
    assert block.fused.bias is None


def test_state_readout_adds_the_encoded_state_to_what_is_read(make_facts):
    given = {
        "facts": make_facts(neurons=4),
        "in_channels": 3,
        "in_shape": (5, 6),
        "positions": "cortex",
        "position_hidden_units": 6,
        "sigma_range": 1.0,
        "feature_penalty": 0.0,
    }
    torch.manual_seed(5)
    readout = GaussianStateReadout(**given, state_channels=4).eval()
    torch.nn.init.normal_(readout.features)
    torch.nn.init.normal_(readout.state_encoder[1].bias)
    without = GaussianReadout(**given).eval()
    without.load_state_dict(
        {k: v for k, v in readout.state_dict().items() if not k.startswith("state_encoder")}
    )
    features, shift = torch.randn(2, 3, 4, 5, 6), 0.1 * torch.randn(2, 4, 2)
    state = torch.randn(2, 4, 4)
    first, norm, _, second, _ = readout.state_encoder
    hidden = gelu(layer_norm(double(state) @ double(first.weight).T + double(first.bias), norm))
    encoded = np.tanh(hidden @ double(second.weight).T + double(second.bias))  # (B, T, C)
    # Adding a vector to the feature map everywhere inside adds it to every neuron's sample; the
    # sampled point is kept inside by a small shift.
    expected = double(without(features, shift))
    for neuron in range(4):
        weights = double(readout.features)[:, neuron]
        expected[:, :, neuron] += encoded @ weights
    got = readout(features, shift, state).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="no behavioural state to encode"):
        GaussianStateReadout(**given, state_channels=0)


@pytest.mark.parametrize(
    ("kind", "changes", "sentence"),
    [
        (ViV1TCore, {"heads": 0}, "heads must be a whole number from 1 on"),
        (ViV1TCore, {"drop_path": 1.0}, "drop_path must be from 0 to below 1"),
        (ViV1TCore, {"patch_dropout": -0.1}, "patch_dropout must be from 0"),
        (ViV1TCore, {"patch_pixels": 8}, "patch_pixels: a patch of 8 pixels exceeds frames of 7"),
        (ViV1TCore, {"longest_clip_frames": 2}, "longest_clip_frames must be .* from 3 on"),
        (CausalViV1TCore, {"time_registers": "middle"}, "time_registers must be last or first"),
        (CausalViV1TCore, {"head_channels": 5}, "head_channels must be even"),
    ],
)
def test_settings_are_checked(kind, changes, sentence):
    published = OF_2023 if kind is ViV1TCore else OF_2025
    with pytest.raises(ValueError, match=sentence):
        small(kind, published, **changes)


def test_a_clip_longer_than_the_table_of_positions_is_refused():
    core = small(ViV1TCore, OF_2023)
    with pytest.raises(ValueError, match="9 frames is longer than the 8"):
        core(torch.randn(1, 2, 9, 7, 9))
