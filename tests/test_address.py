"""What counts as a repository on the hub, and what is said about anything else."""

import pytest

from dreambooth_cli.address import read_address
from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.bases.facts import read_facts
from dreambooth_cli.errors import ModelUnavailable
from dreambooth_cli.settings import PrepSettings, TrainSettings
from dreambooth_cli.workflows.plan import plan_run


@pytest.mark.parametrize(
    ("named", "repository", "revision"),
    [
        ("owner/name", "owner/name", "main"),
        ("owner/name/", "owner/name", "main"),
        (" owner/name ", "owner/name", "main"),
        ("owner/name@fp16", "owner/name", "fp16"),
        ("owner/name@refs/pr/1", "owner/name", "refs/pr/1"),
        ("https://huggingface.co/owner/name", "owner/name", "main"),
        ("https://huggingface.co/owner/name/", "owner/name", "main"),
        ("http://www.huggingface.co/owner/name/tree/main", "owner/name", "main"),
        ("https://huggingface.co/owner/name/tree/v2", "owner/name", "v2"),
        ("https://huggingface.co/owner/name/tree/refs%2Fpr%2F1", "owner/name", "refs/pr/1"),
        ("https://huggingface.co/owner/name/commit/" + "0" * 40, "owner/name", "0" * 40),
        ("https://huggingface.co/owner/name/blob/main/model_index.json", "owner/name", "main"),
        ("https://huggingface.co/owner/name/discussions/3", "owner/name", "main"),
        ("https://huggingface.co/models/owner/name?library=diffusers#files", "owner/name", "main"),
        ("https://me:secret@huggingface.co/owner/name", "owner/name", "main"),
        ("huggingface.co/owner/name", "owner/name", "main"),
        ("HF.co/owner/name", "owner/name", "main"),
        ("hf://owner/name@v2", "owner/name", "v2"),
        ("owner/name.git", "owner/name", "main"),
        ("https://huggingface.co/owner/name.git", "owner/name", "main"),
        ("git@hf.co:owner/name.git", "owner/name", "main"),
        ("https://huggingface.co/api/models/owner/name", "owner/name", "main"),
    ],
)
def test_a_repository_by_its_name_or_its_pages_address(named, repository, revision):
    request = ask_for_base(named)
    assert (request.repository, request.revision, request.path, request.entry) == (repository, revision, None, None)
    again = ask_for_base(request.asked)
    assert (again.repository, again.revision) == (repository, revision)


@pytest.mark.parametrize(
    "named",
    [
        "sd15/",
        "stable-diffusion-v1-5/stable-diffusion-v1-5/",
        "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/tree/main",
        "https://huggingface.co/runwayml/stable-diffusion-v1-5",
    ],
)
def test_the_catalogues_own_are_known_by_their_addresses(named):
    request = ask_for_base(named)
    assert (request.entry.name, request.revision) == ("sd15", request.entry.revision)
    other = ask_for_base("runwayml/stable-diffusion-v1-5@fp16")
    assert (other.repository, other.revision) == ("stable-diffusion-v1-5/stable-diffusion-v1-5", "fp16")


def test_the_address_of_a_mirror(monkeypatch):
    with pytest.raises(ModelUnavailable, match="is an address elsewhere"):
        read_address("https://hf-mirror.com/owner/name")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@hf-mirror.com")
    assert read_address("https://hf-mirror.com/owner/name").repository == "owner/name"


@pytest.mark.parametrize(
    ("named", "message", "hint"),
    [
        ("https://civitai.com/models/4384?modelVersionId=1", "is an address elsewhere", "--model ./model.safetensors"),
        ("https://me:secret@a.b/api?token=secret", "https://a.b/api is an address elsewhere", "download the file"),
        ("https://a.b/c/model.ckpt", "is an address elsewhere", "a pickle, which is never loaded"),
        ("https://a.b/c/mine.safetensors", "is an address elsewhere", "--model ./mine.safetensors"),
        ("s3://bucket/x", "is an address elsewhere", "download the file"),
        ("https://huggingface.co.evil.com/owner/name", "is an address elsewhere", "download the file"),
        ("https://huggingface.co/owner/name/blob/main/a.safetensors", "is one file of owner/name", "--model ./a.safetensors"),
        ("https://huggingface.co/owner/name/resolve/main/a.ckpt", "is one file of owner/name", "a pickle"),
        ("https://huggingface.co/owner/name/tree/main/unet", "is a folder within owner/name", "--model owner/name"),
        ("https://huggingface.co/datasets/owner/name", "is a dataset, not a model", "owner/name"),
        ("https://huggingface.co/spaces/owner/name", "is a space, not a model", "owner/name"),
        ("https://huggingface.co/owner", "can't be a repository", "owner/name"),
        ("https://huggingface.co/", "can't be a repository", "owner/name"),
        ("https://huggingface.co/../../etc", "can't be a repository", "owner/name"),
        ("https://[bad/model.safetensors", "is an address elsewhere", "--model ./model.safetensors"),
        ("file://[bad", "there is no base model called", "dreambooth models"),
        ("own er/name", "can't be a repository", "owner/name"),
        ("owner/na--me", "can't be a repository", "owner/name"),
        ("owner/name@", "'' can't be a revision", "owner/name@main"),
        ("owner/name@a/../../b", "can't be a revision", "owner/name@main"),
        ("owner\\name", "there is no model at", "check the path"),
        ("a/b/c", "there is no model at", "check the path"),
        ("file:///nowhere/model", "there is no model at /nowhere/model", "check the path"),
    ],
)
def test_what_is_no_repository_is_told_with_what_to_do(named, message, hint):
    with pytest.raises(ModelUnavailable) as caught:
        ask_for_base(named)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint
    assert caught.value.exit_code == 5


def test_a_folder_by_its_address_or_with_a_slash(tmp_path, monkeypatch):
    (tmp_path / "my base").mkdir()
    for named in (f"{tmp_path}/my base/", f"file://{tmp_path}/my%20base"):
        assert ask_for_base(named).path == (tmp_path / "my base").resolve()
    # a folder called like a base of the catalogue
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sd15").mkdir()
    assert ask_for_base("sd15/").path == (tmp_path / "sd15").resolve()


def test_a_password_in_an_address_is_never_printed(monkeypatch):
    with pytest.raises(ModelUnavailable) as caught:
        plan_run("https://me:secret@huggingface.co/owner/name", PrepSettings(), TrainSettings(), gpu=None)
    assert "owner/name" in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint


def test_what_lies_beside_or_within_a_base_leads_to_it(sd1, tmp_path):
    assert ask_for_base(str(sd1 / "model_index.json")).path == sd1
    (tmp_path / "models--owner--name" / "snapshots").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "weights.safetensors").touch()
    for folder, hint in (
        (sd1 / "unet", f"--model {sd1}"),
        (tmp_path / "models--owner--name", "--model owner/name"),
        (tmp_path / "output", f"--model {tmp_path / 'output' / 'weights.safetensors'}"),
    ):
        with pytest.raises(ModelUnavailable, match="is not a whole base model") as caught:
            read_facts(folder)
        assert hint in caught.value.hint
