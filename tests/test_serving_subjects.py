"""What `rim serve` serves: runs, exported folders and GGUF files."""

from __future__ import annotations

import pytest
from export_models import checked_in_process, make_run
from test_cli import plain_console, rim_command  # noqa: F401

from rim.config import ConfigError
from rim.deploy.export import export_run, plan_push
from rim.deploy.export.record import EXPORT_FILE, BlockRange
from rim.deploy.serve import find_subject
from rim.deploy.serve.engines import find_engine
from rim.results import write_json


@pytest.fixture(scope="module")
def exported_run(plain_tokenizer, tmp_path_factory):
    """A run that was served once: its export stands in its folder."""
    run = make_run("gpt2", plain_tokenizer, tmp_path_factory.mktemp("run"))
    before = find_subject(run)
    assert (before.run, before.folder, before.gguf) == (run, run / "exported", None)
    with checked_in_process():
        export_run(run, run / "exported")
    assert find_subject(run).blocks == before.blocks
    return run


@pytest.mark.slow
def test_a_run_is_exported_once(exported_run):
    subject = find_subject(exported_run)
    assert (subject.run, subject.folder) == (None, exported_run / "exported")
    assert subject.blocks == BlockRange(3, 64)
    assert len(subject.forbidden_ids) == 3 and subject.gguf is None


def test_a_gguf_file_is_found_beside_its_export(exported_run):
    folder = exported_run / "exported"
    first, second = folder / "a.gguf", folder / "b.gguf"
    first.touch()
    try:
        assert find_subject(exported_run).gguf == find_subject(folder).gguf == first
        named = find_subject(first)  # who names the file means the file, not the folder
        assert (named.folder, named.gguf) == (None, first)
        assert named.blocks == find_subject(folder).blocks and len(named.forbidden_ids) == 3
        with pytest.raises(ConfigError, match=r"reads an exported folder, not .*a\.gguf"):
            find_engine("transformers", named)
        second.touch()
        with pytest.raises(ConfigError, match=r"several GGUF files \(a.gguf, b.gguf\)"):
            find_engine("llama.cpp", find_subject(folder))
        several = find_subject(folder)  # of which the other engines read none
        assert several.gguf is None and several.folder == folder
    finally:
        first.unlink()
        second.unlink(missing_ok=True)


def test_a_stale_or_changed_export_is_not_served(exported_run):
    for file, message in {
        exported_run / "model" / "rim.json": "was exported from another model",
        exported_run / "exported" / "chat_template.jinja": "chat_template.jinja changed after",
    }.items():
        before = file.read_text()
        file.write_text(before + " ")
        with pytest.raises(ConfigError, match=f"{message}.*; remove .*exported to have it"):
            find_subject(exported_run)
        file.write_text(before)
    assert find_subject(exported_run)


def test_an_export_with_half_a_record_is_not_served(tmp_path):
    write_json(tmp_path / EXPORT_FILE, {"sha256": {}})
    for use in (find_subject, lambda folder: plan_push(folder, "a/b")):
        with pytest.raises(ConfigError, match=r"is damaged \(KeyError\('blocks'\)\); export"):
            use(tmp_path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "no such run or model folder: nothing"),
        ("none.gguf", "no such file: none.gguf"),
    ],
)
def test_nothing_to_serve(path, message):
    assert message in rim_command("serve", path, code=2)


def test_a_model_folder_is_to_be_exported_first(exported_run):
    with pytest.raises(ConfigError, match="is a model folder; export it first: `rim export"):
        find_subject(exported_run / "model")
