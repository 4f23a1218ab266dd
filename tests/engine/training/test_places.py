"""Where photos were taken, as recognised by the base itself."""

from random import Random

import torch

from dreambooth_cli.bases.base import ask_for_base
from dreambooth_cli.engine.families.latent_diffusion import encode_frozen
from dreambooth_cli.engine.families.loading import load_family
from dreambooth_cli.engine.hub.bases import obtain
from dreambooth_cli.engine.training.examples import encode_pictures
from dreambooth_cli.engine.training.places import find_place
from dreambooth_cli.identifier import load_tokenizer
from dreambooth_cli.places import places_known
from dreambooth_cli.pocket import world
from tests.benchmarks.bench import last_of


def test_the_pocket_sees_where_its_photos_were_taken(tmp_path):
    base = last_of(obtain(ask_for_base("pocket")))
    known = places_known(load_tokenizer(base.vocabulary))
    assert set(known) > set(world.PLACES)
    family = load_family(base, dtype=torch.float32, device=torch.device("cpu"))
    subject = world.draw_subject(300)
    paths = []
    for number, place in enumerate(world.PLACES):
        paths.append(tmp_path / f"{number}.png")
        world.render(world.draw_scene(Random(f"place {number}"), subject, place)).save(paths[-1])
    photos = list(encode_pictures(family, paths))
    prompts = encode_frozen(family, [f"a photo of a {subject.class_name} {place}" for place in known])
    found = [find_place(family, photo, prompts, batch=4) for photo in photos]
    assert [known[row] for row in found] == list(world.PLACES)
    assert [find_place(family, photo, prompts, batch=5) for photo in photos] == found
