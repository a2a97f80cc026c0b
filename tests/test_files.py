"""Files: written whole or not at all, named where they cannot be, read to their last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tikmix_hf import files


def test_a_last_line_that_lacks_only_its_end_counts_and_a_torn_one_does_not(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    assert list(files.read_records(path)) == [{"step": 1}, {"step": 2}]
    for torn in ("", '{"step": 2', "2"):
        path.write_text('{"step": 1}\n' + torn)
        assert list(files.read_records(path)) == [{"step": 1}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"step": 1}\n{\n{"step": 2}\n', "line 2 is not JSON"),
        (b"[1]\n", "line 1 must be an object"),
        (b"\xff\n", "must be text in UTF-8; byte 0 is none"),
    ],
)
def test_what_is_no_line_is_named_with_its_file(tmp_path, content, told):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"lines\.jsonl .*{told}"):
        files.read_records(path)


@pytest.mark.parametrize("write", [files.write_text, files.write_bytes])
def test_what_cannot_be_written_is_named_and_leaves_nothing(tmp_path, write):
    content = "" if write is files.write_text else b""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(IsADirectoryError) as told:
        write(tmp_path / "folder", content)
    assert told.value.filename == str(tmp_path / "folder")
    with pytest.raises(NotADirectoryError) as told:
        write(tmp_path / "file" / "x.json", content)
    assert told.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as told:
        write("/proc/x.json", content)
    assert told.value.filename == "/proc/x.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_bytes_are_replaced_at_once(tmp_path):
    path = files.write_bytes(tmp_path / "new" / "x.gz", b"one")
    assert files.write_bytes(path, b"two") == path
    assert path.read_bytes() == b"two"
    assert [own.name for own in Path(path).parent.iterdir()] == ["x.gz"]
