"""Files that are either whole or absent."""
import pytest
import torch
from safetensors.torch import load_file, save_file

from probes.atomic import replacing, write_text


def half(path):
    with replacing(path) as temporary:
        temporary.write_text("sec")
        raise ValueError("half-way")


def test_a_file_is_whole_or_as_it_was_and_leaves_nothing_beside_it(tmp_path):
    write_text(tmp_path / "below" / "note", "first")
    with pytest.raises(ValueError, match="half-way"):
        half(tmp_path / "below" / "note")
    assert (tmp_path / "below" / "note").read_text() == "first"
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["note"]


def test_whoever_reads_other_new_files_reads_these(tmp_path):
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "weights.safetensors") as temporary:
        save_file({"x": torch.ones(2)}, temporary)
    write_text(tmp_path / "text", "text")
    usual = (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "weights.safetensors").stat().st_mode == usual == (tmp_path / "text").stat().st_mode
    assert load_file(tmp_path / "weights.safetensors")["x"].tolist() == [1, 1]
