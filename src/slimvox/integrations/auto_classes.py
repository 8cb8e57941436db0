"""Makes the Auto classes of `transformers` know slimvox, without importing `transformers`.

Registering needs a configuration class, and that needs `transformers`, which takes seconds. So it waits until somebody
imports the Auto classes, whether that was before `import slimvox` or comes after it. The model classes, which need
torch and much more, are imported when one is used.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec

CLASSES = "slimvox.hf.heads"


def register_with_transformers() -> None:
    """Register now what `transformers` has imported of its Auto classes, and the rest as soon as it does."""
    if not any(isinstance(finder, _AutoClassesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AutoClassesFinder())
    for name in REGISTRATIONS:
        if name in sys.modules:
            # Waits for the import lock, in case another thread is in the middle of it.
            _register(importlib.import_module(name))


class Placeholder(type):
    """A class that stands for another one, which is imported when the placeholder is first used.

    The Auto classes may be imported in the middle of an import of modules that our classes need, so that those cannot
    be imported then and there.
    """

    home: str
    """Module of the class."""

    def _real(cls) -> Any:
        return getattr(importlib.import_module(cls.home), cls.__name__)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls._real(), name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        """Make an instance of the class."""
        return cls._real()(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls._real())

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls._real())


def _placeholder(home: str, name: str, **attributes: Any) -> Placeholder:
    return Placeholder(name, (), {"__module__": home, "home": home, **attributes})


def _register_configuration(module: ModuleType) -> None:
    from slimvox.hf.configuration import SlimvoxConfig
    from slimvox.hf.directory_format import MODEL_TYPE

    module.AutoConfig.register(MODEL_TYPE, SlimvoxConfig, exist_ok=True)


def _register_models(module: ModuleType) -> None:
    from slimvox.hf.configuration import SlimvoxConfig
    from slimvox.hf.directory_format import AUTO_MAP

    for auto_class, reference in AUTO_MAP.items():
        if auto_class != "AutoConfig":
            model_class = _placeholder(CLASSES, reference.rpartition(".")[2], config_class=SlimvoxConfig)
            getattr(module, auto_class).register(SlimvoxConfig, model_class, exist_ok=True)


def _register_feature_extractor(module: ModuleType) -> None:
    from slimvox.hf.configuration import SlimvoxConfig

    home = "transformers.models.wav2vec2.feature_extraction_wav2vec2"
    module.AutoFeatureExtractor.register(
        SlimvoxConfig, _placeholder(home, "Wav2Vec2FeatureExtractor"), exist_ok=True
    )


REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "transformers.models.auto.configuration_auto": _register_configuration,
    "transformers.models.auto.modeling_auto": _register_models,
    "transformers.models.auto.feature_extraction_auto": _register_feature_extractor,
}
"""What is to be done when a module of `transformers` has been imported."""


def _register(module: ModuleType) -> None:
    try:
        REGISTRATIONS[module.__name__](module)
    except Exception as error:  # whatever is wrong, other people's use of transformers has to go on
        warnings.warn(
            f"slimvox could not register with {module.__name__}: {error}; AutoModel will not know its directories",
            stacklevel=2,
        )


class _AutoClassesFinder:
    """Lets the other finders find a module, and has it registered right after it was executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of the modules that are waited for; None for all others."""
        if fullname not in REGISTRATIONS:
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, _AutoClassesFinder)]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register(module)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
