"""Stand-ins for packages that another program imports but does not use for loading, if they are not installed."""

import sys
from collections.abc import Collection
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Absent(MetaPathFinder, Loader):
    """Finds these packages, as the last of all finders: every name in them is an empty class. `used`: those that were imported."""

    def __init__(self, names: Collection[str]) -> None:
        self.names, self.used = names, set[str]()
        sys.meta_path.append(self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """A package's spec, or a module's in it."""
        package = name.partition(".")[0]
        if package not in self.names:
            return None
        self.used.add(package)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """A module that has any name except those that Python itself looks up."""
        module = ModuleType(spec.name)

        def found(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        vars(module)["__getattr__"] = found
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
