"""The prompts: fixed, diverse, and spelt as captions are."""

from astolfo.evaluate.prompts import Prompt, procedural_prompts


def test_they_are_a_function_of_the_seed():
    """The same seed gives the same prompts, a shorter set is the beginning of a longer one, another seed gives others."""
    assert procedural_prompts(1, 9)[:4] == procedural_prompts(1, 4)
    assert procedural_prompts(1, 4) != procedural_prompts(2, 4)


def test_they_are_diverse():
    """The first seven have seven shapes, seven colours and seven grounds, and none has one colour on itself."""
    scenes = [prompt.scene for prompt in procedural_prompts(3, 28)]
    for attribute in ("shape", "colour", "background"):
        assert len({getattr(scene, attribute) for scene in scenes[:7]}) == 7
    assert all(scene.colour != scene.background for scene in scenes)
    assert len({(scene.shape, scene.colour) for scene in scenes}) == 28


def test_they_are_spelt_as_captions():
    """Tags with spaces, then the sentence; the label is the sentence alone, or the text where no scene is known."""
    prompt = procedural_prompts(1, 1)[0]
    scene = prompt.scene
    assert prompt.text.startswith(f"1{scene.shape}, solo, {scene.colour} {scene.shape}, {scene.background} background, ")
    assert prompt.text.endswith(prompt.label)
    assert prompt.label.startswith(f"a {scene.size} {scene.colour} {scene.shape} ")
    assert Prompt("astolfo").label == "astolfo"
