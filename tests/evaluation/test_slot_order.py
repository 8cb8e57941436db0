"""The order of the slots of a coffee order, read off what a recogniser heard."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

NAMES = ("numberOfShots", "size", "roast", "coffeeDrink", "milkAmount", "sugarAmount")


@pytest.fixture(scope="module")
def order() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "mini_superb" / "slot_order.py"
    spec = importlib.util.spec_from_file_location("slot_order", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["slot_order"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def spoken(order: ModuleType, slots: dict[str, str], text: str) -> list[str]:
    found: list[str] = order.spoken_order(slots, order.locate(slots, text), NAMES)
    return found


def test_values_are_put_in_the_order_of_speech(order: ModuleType) -> None:
    slots = {"coffeeDrink": "mocha", "size": "large", "milkAmount": "a bit of cream", "roast": "dark roast"}
    text = "Make me a dark roast, large mocha with a bit of cream."
    assert spoken(order, slots, text) == ["roast", "size", "coffeeDrink", "milkAmount"]


def test_figures_and_misheard_words_are_found(order: ModuleType) -> None:
    slots = {"size": "twelve ounce", "coffeeDrink": "cappuccino", "numberOfShots": "triple shot"}
    assert spoken(order, slots, "A triple shirt 12oz capuchino.") == ["numberOfShots", "size", "coffeeDrink"]


def test_a_word_serves_one_value(order: ModuleType) -> None:
    slots = {"size": "medium", "roast": "medium roast", "coffeeDrink": "latte"}
    heard = order.locate(slots, "a medium roast medium latte")
    assert heard.places == {"roast": 1, "size": 3, "coffeeDrink": 4}
    assert order.locate({"size": "medium", "roast": "medium roast"}, "a medium roast").places == {"roast": 1}


def test_a_value_that_was_not_heard_takes_its_usual_place(order: ModuleType) -> None:
    slots = {"size": "small", "coffeeDrink": "espresso", "roast": "light roast"}
    assert spoken(order, slots, "an espresso in small please") == ["coffeeDrink", "size", "roast"]
    assert spoken(order, slots, "small mumble espresso") == ["size", "roast", "coffeeDrink"]
    assert spoken(order, slots, "") == ["size", "roast", "coffeeDrink"]


def test_the_usual_order_is_the_most_frequent(order: ModuleType) -> None:
    heard = [order.Heard(places=places) for places in ({"a": 0, "b": 4}, {"a": 1, "b": 2}, {"b": 0, "a": 5})]
    assert order.usual_order(heard, ("b", "a")) == ["a", "b"]
