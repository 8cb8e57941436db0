"""Registries of named values."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from slimvox.util.errors import SlimvoxError
from slimvox.util.registry import Registry


@dataclass(frozen=True)
class Bird:
    """A value to register."""

    name: str
    song: str = "tweet"


def _refuse_ducks(bird: Bird) -> None:
    if bird.name == "duck":
        raise ValueError("ducks are refused")


def make_registry() -> Registry[Bird]:
    """Two birds, with different songs."""
    birds: Registry[Bird] = Registry("bird", unique=("song",), check=_refuse_ducks, option="zoo.bird")
    birds.register(Bird("owl", "hoo"))
    birds.register(Bird("crow", "caw"))
    return birds


def test_values_are_found_by_name_in_the_order_of_their_registration() -> None:
    birds = make_registry()
    assert birds.names() == ("owl", "crow")
    assert birds.all() == (Bird("owl", "hoo"), Bird("crow", "caw"))
    assert birds.get("crow") == birds.find("crow") == Bird("crow", "caw")
    birds.unregister("owl")
    assert birds.names() == ("crow",)
    assert birds.register(Bird("owl", "hoo")) == Bird("owl", "hoo")


@pytest.mark.parametrize(
    ("bird", "message"),
    [
        (Bird("owl"), "a bird with the name 'owl' is registered already"),
        (Bird("rook", "caw"), "a bird with the song 'caw' is registered already"),
        (Bird("duck"), "ducks are refused"),
    ],
)
def test_a_refused_value_changes_nothing(bird: Bird, message: str) -> None:
    birds = make_registry()
    with pytest.raises(ValueError, match=message):
        birds.register(bird)
    assert birds.names() == ("owl", "crow")


@pytest.mark.parametrize("name", ["wren", None, 3, ["owl"]])
def test_a_name_that_somebody_gave_can_be_anything(name: object) -> None:
    with pytest.raises(SlimvoxError) as raised:
        make_registry().find(name, "zoo.json")
    assert str(raised.value) == f"zoo.json: `zoo.bird` must be one of owl, crow, but is {name!r} instead"
    with pytest.raises(SlimvoxError, match=r"^`zoo\.bird` must"):
        make_registry().find(name)
