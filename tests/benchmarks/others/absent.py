"""Stand-ins for packages that another program's code imports and its loading doesn't use, where they are not installed."""

import sys
from collections.abc import Collection
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class Absent(MetaPathFinder, Loader):
    """Finds these packages, last of all finders: whatever is asked of one is an empty class. `used` are those that were asked for."""

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
        """A module with any name in it but those that Python asks for by itself."""
        module = ModuleType(spec.name)

        def found(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        vars(module)["__getattr__"] = found
        return module

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""
