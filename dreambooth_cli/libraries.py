"""The libraries that do the work: which versions are here, which were tried, and what to say when one refuses another."""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

from . import __version__
from .errors import LibraryRefused
from .events import Events, Warned

PACKAGE = "dreambooth-cli"
DLIB = "dlib-bin"  # dlib as it is built for each system; it finds faces
# The package sets no upper bound for torch, because the right build depends on the card. 2.13.0 and 2.14.1 were tried; 2.15.0 is out but
# was not tried.
TRIED_TORCH = ">=2.13,<2.15"
# Requirements that shape a run, or that check one another's versions.
WATCHED = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "huggingface-hub",
    "tokenizers",
    "safetensors",
    "bitsandbytes",
    "numpy",
    "pillow",
)
# Words by which an error other than ImportError is recognised as being about another library's version.
DEMAND = re.compile(r"version|compatible|pip install|upgrad|updat|[<>]=|has no attribute|not available", re.IGNORECASE)


def installed(name: str) -> str | None:
    """The version of an installed package, None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def tried_ranges() -> dict[str, str]:
    """The tried versions of the watched libraries, as pip writes them: what this package asks for, and torch's own."""
    asked = asked_ranges()
    return {name: asked[name] for name in WATCHED if name in asked}


def asked_ranges() -> dict[str, str]:
    """The versions of every library that this package asks for, as pip writes them; torch's are those that were tried."""
    from packaging.requirements import Requirement

    asked = {_canonical(each.name): each.specifier for each in map(Requirement, requirements_of(PACKAGE))}
    return {name: ",".join(sorted(map(str, versions), reverse=True)) for name, versions in asked.items()} | {"torch": TRIED_TORCH}


def requirements_of(name: str) -> list[str]:
    """The requirements of an installed package; none if it is not installed, as in a checkout."""
    try:
        return requires(name) or []
    except PackageNotFoundError:
        return []


def fits_here(name: str) -> bool:
    """Whether this package asks for a library on this Python and machine: some are not built for all. True for one that it never names."""
    from packaging.requirements import Requirement

    asked = [each for each in map(Requirement, requirements_of(PACKAGE)) if _canonical(each.name) == name]
    return not asked or any(each.marker is None or each.marker.evaluate({"extra": ""}) for each in asked)


def untried() -> dict[str, tuple[str, str]]:
    """The watched libraries that are installed in an untried version: name -> (version, tried range)."""
    from packaging.specifiers import SpecifierSet

    pairs = {name: (installed(name), tried) for name, tried in tried_ranges().items()}
    return {
        name: (found, tried)
        for name, (found, tried) in pairs.items()
        if found is not None and not SpecifierSet(tried).contains(found, prereleases=True)
    }


def untried_words() -> str:
    """One line that names every untried version; "" if there is none."""
    found = untried()
    if not found:
        return ""
    named = ", ".join(f"{name} {here} (tried: {tried})" for name, (here, tried) in found.items())
    return f"not tried with dreambooth {__version__}: {named}; if something fails: {install_line(found)}"


def warn_of_untried() -> Events:
    """At most one warning, about untried versions."""
    if words := untried_words():
        yield Warned(message=words)


def warned(events: Events) -> Events:
    """The same events, after at most one warning about untried versions."""
    yield from warn_of_untried()
    yield from events


def version_lines() -> list[str]:
    """Python and the watched libraries, a line each."""
    found = {"python": sys.version.split()[0]} | {name: installed(name) or "not installed" for name in WATCHED}
    return [f"{name} {here}" for name, here in found.items()]


def install_line(names: Iterable[str]) -> str:
    """The line that installs versions of libraries that this package asks for."""
    asked = asked_ranges()
    return " ".join([pip(), "install", *(f'"{name}{asked.get(name, "")}"' for name in names)])


def pip() -> str:
    """How pip is called for the environment that this program runs in."""
    if (Path(sys.prefix) / "pipx_metadata.json").is_file():
        return f"pipx runpip {PACKAGE}"
    return f'"{sys.executable}" -m pip' if " " in sys.executable else f"{sys.executable} -m pip"


def refusal_of(error: BaseException | None) -> LibraryRefused | None:
    """A library's refusal of another one's version, with both versions and the command that fixes it; None for any other error.

    An ImportError counts as one if a library raised it or it names one; any other error if a library names another in words that are
    about versions. Among an error and its causes, the innermost that names both libraries is reported.
    """
    found: list[tuple[str, str | None, str]] = []
    while error is not None:
        if (pair := _pair_in(error)) is not None:
            found.append((*pair, str(error)))
        error = error.__cause__
    naming_both = [each for each in found if each[1] is not None]
    return _in_words(*(naming_both or found)[-1]) if found else None


def _pair_in(error: BaseException) -> tuple[str, str | None] | None:
    """Who refuses and what is refused, as far as it is named; None for an error that is no refusal."""
    text, refuser = str(error), _library_of(error)
    refused = _named_in(text, but=refuser)
    if isinstance(error, ImportError):
        refused = refused or _asked_for(text) or (_other_named_in(text, but=refuser) if refuser else None)
        return (refuser or PACKAGE, refused) if refuser or refused else None
    return (refuser, refused) if refuser and refused and DEMAND.search(text) else None


def _in_words(refuser: str, refused: str | None, text: str) -> LibraryRefused:
    one = f"{refuser} {__version__ if refuser == PACKAGE else installed(refuser)}"
    said = " ".join(text.split())
    if refused is None:
        return LibraryRefused(f"{one} can't be used here: {said}", f"reinstall it: {install_line([refuser])}")
    here = installed(refused)
    if here is None:
        return LibraryRefused(f"{one} needs {refused}, which is not installed: {said}", install_line([refused]))
    message = f"{one} and {refused} {here} don't work together: {said}"
    ours = [name for name in (refuser, refused) if name in WATCHED]
    if refused not in WATCHED and not any(one.startswith(refused) for one in requirements_of(refuser)):
        return LibraryRefused(message, f"nothing here needs {refused}: {pip()} uninstall {refused}")
    if refused in WATCHED and not {*ours} & {*untried()}:
        return LibraryRefused(message, f"a newer dreambooth may know it: {pip()} install --upgrade {PACKAGE}")
    return LibraryRefused(message, install_line(ours))


def _canonical(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _library_of(error: BaseException) -> str | None:
    """The watched library nearest to where an error was raised."""
    found, trace = None, error.__traceback__
    while trace is not None:
        top = _canonical(str(trace.tb_frame.f_globals.get("__name__", "")).split(".")[0])
        found, trace = top if top in WATCHED else found, trace.tb_next
    return found


def _named_in(text: str, *, but: str | None) -> str | None:
    """The first watched library that a text names, other than the one that speaks."""
    words = map(_canonical, re.findall(r"[A-Za-z][\w-]*", text))
    return next((word for word in words if word in WATCHED and word != but), None)


def _asked_for(text: str) -> str | None:
    """The package that a text asks to install: `pip install scipy`, or "Make sure to install scipy"."""
    found = re.search(r"(?:pip3? |[Mm]ake sure to )install (?:-\S+ )*[`'\"]?([A-Za-z][\w-]*)", text)
    return _canonical(found[1]) if found else None


def _other_named_in(text: str, *, but: str) -> str | None:
    """The first package that is here and that a text names by what is imported of it."""
    here = packages_distributions()
    words = [word for word in re.findall(r"[A-Za-z]\w*", text) if word in here and word != "pip"]
    return next((name for word in words if (name := _canonical(here[word][0])) != but), None)
