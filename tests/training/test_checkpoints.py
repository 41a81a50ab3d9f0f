"""Checkpoints: whole ones come back exactly, torn ones are set aside, those of others refused."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sensorium_models.training.checkpoints import CheckpointError, CheckpointFile

CONFIGURATION = {"system": {"recipe": {"clip_frames": 80}, "betas": (0.9, 0.999)}, "member": "a"}


def file_at(path: Path, configuration: Any = CONFIGURATION) -> CheckpointFile:
    return CheckpointFile(path, configuration=configuration)


def state(number: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(number)
    return {
        "weights": {"w": torch.randn(3, 4, generator=generator)},
        "random": generator.get_state(),
        "history": [{"epoch": number, "objective": 0.1, "rate": None}],
        "name": "é",
    }


def same(found: Any, expected: dict[str, Any]) -> bool:
    return (
        torch.equal(found["weights"]["w"], expected["weights"]["w"])
        and torch.equal(found["random"], expected["random"])
        and found["history"] == expected["history"]
        and found["name"] == expected["name"]
    )


def test_comes_back_exactly_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "seed1.ckpt"
    assert file_at(path).load() is None
    file_at(path).save(state(1))
    assert same(file_at(path).load(), state(1))
    file_at(path).save(state(2))
    assert same(file_at(path).load(), state(2))
    path.unlink()  # killed between the two renames: the one before is found
    assert same(file_at(path).load(), state(1))
    file_at(path).remove()
    assert not list(path.parent.iterdir())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_damage_is_noticed_and_the_older_one_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: st.DataObject
) -> None:
    path = tmp_path / "seed1.ckpt"
    file_at(path).save(state(1))
    file_at(path).save(state(2))
    raw = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut"):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1), "length")]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1), "byte")] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    assert same(file_at(path).load(), state(1))
    assert "torn or foreign" in capsys.readouterr().err
    # The damaged file does not push out the good one at the next save.
    file_at(path).save(state(3))
    path.write_bytes(b"")
    assert same(file_at(path).load(), state(1))


def test_foreign_files_only(tmp_path: Path) -> None:
    path = tmp_path / "seed1.ckpt"
    torch.save({"state": 1}, path)
    path.with_name("seed1.ckpt.previous").write_text("hello")
    assert file_at(path).load() is None


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "seed1.ckpt"
    file_at(path).save(state(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sensorium_models.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file_at(path).save(state(2))
    monkeypatch.undo()
    found = file_at(path).load()
    assert same(found, state(1))
    assert not list(tmp_path.glob("*.part*"))


def test_another_configuration_is_refused_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "seed1.ckpt"
    file_at(path).save(state(1))
    changed = {
        "system": {"recipe": {"clip_frames": 60}, "betas": [0.9, 0.999]},
        "member": "a",
        "more": 1,
    }
    with pytest.raises(CheckpointError) as caught:
        file_at(path, changed).load()
    message = str(caught.value)
    assert "system.recipe.clip_frames: 80 there, 60 now" in message
    assert "more: 'absent' there, 1 now" in message
    assert "betas" not in message
    assert "member:" not in message
    assert path.exists()


def test_writing_and_reading_hold_a_tensor_at_a_time(tmp_path: Path) -> None:
    """Beside the tensors themselves: a checkpoint may be as large as half of the memory."""
    size = 4 << 20
    weights = {str(number): torch.full((size,), number, dtype=torch.uint8) for number in range(8)}
    path = tmp_path / "seed1.ckpt"
    for act in (lambda: file_at(path).save(weights), lambda: file_at(path).load()):
        tracemalloc.start()  # sees what Python holds, not the tensors
        found = act()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * size
    assert all(torch.equal(found[key], values) for key, values in weights.items())
