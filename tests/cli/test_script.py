"""All commands in a shell script, without a terminal: each failure would stop it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import environment

pytestmark = pytest.mark.slow

SCRIPT = """
dreambooth init my-dog --photos "$PHOTOS" --class-prompt "a dog" --model "$BASE" --yes
dreambooth prep my-dog
dreambooth train my-dog --steps 3 --class-images 2 --class_image_steps 2 --json > train.jsonl
dreambooth generate my-dog "a [identifier] dog on the moon" --num-images 2 --steps 2 --seed 7 > images.txt
dreambooth models --json > models.json
best=$(python -c 'import json; print(json.load(open("models.json"))["models"][0]["name"])')
dreambooth models "$best" > "$best.txt"
dreambooth models | head -1
while read -r image; do test -s "$image"; done < images.txt
dreambooth projects path my-dog
dreambooth projects remove my-dog --yes
"""


@pytest.mark.skipif(os.name == "nt", reason="needs sh")
def test_a_script(photos: Path, sd1: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in (("dreambooth", "-m dreambooth_cli "), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        program.chmod(0o755)
    env = {**environment(), "PHOTOS": str(photos), "BASE": str(sd1), "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-eu", "-c", SCRIPT],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    events = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [event["step"] for event in events if event["event"] == "step"] == [1, 2, 3]
    assert events[-1]["event"] == "model"
    images = (tmp_path / "images.txt").read_text().splitlines()
    assert len(images) == 2
    assert (tmp_path / "sd15.txt").is_file()
    model = json.loads((tmp_path / "models.json").read_text())["models"][0]
    assert set(model["plan"]) == {"method", "train_text_encoder", "means", "predicted_gb", "ram_gb", "fits", "why"}
    assert not (tmp_path / "dreambooth-home" / "projects" / "my-dog").exists()
