"""Families with windows and with states, adapted by LoRA: trained the right way, exported as they
answer.
"""

from __future__ import annotations

import io
import json

import families
import pytest
from export_models import checked_in_process
from rich.console import Console

from rim.deploy.export import export_run
from rim.train.curriculum import train

#: A window in every layer; in every second one, on eager attention alone; a convolution's state.
WAYS = {"mistral": "parallel", "gemma2": "parallel", "lfm2": "separate"}


# transformers says once that it runs recurrent layers without their optional kernels.
@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
@pytest.mark.slow
@pytest.mark.parametrize("family", WAYS)
def test_an_adapted_family_is_exported_with_its_own_answers(family, tmp_path):
    attention = families.tiny_base(family, tmp_path / "base")
    recipe = families.recipe_of(
        family, tmp_path, attention=attention, tuning="lora", lora={"rank": 4}
    )
    run = train(recipe, console=Console(file=io.StringIO()))
    decided = json.loads(run.readouts_file.read_text())
    assert {record["readouts"] for record in decided.values()} == {WAYS[family]}
    # The self-check compares plain transformers with the run, well beyond the window.
    with checked_in_process():
        report = export_run(run.path, tmp_path / "exported")
    assert report.check.answers > 0 and report.check.max_logit_difference < 1e-4
