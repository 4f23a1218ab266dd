"""Imports only point down and never in a circle, each library belongs to one layer, and what is slow to load stays out of `--help`.

cli > workflows > pocket > engine > photos > root
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dreambooth_cli"
LAYERS = ("root", "photos", "engine", "pocket", "workflows", "cli")

# Which layer may import a library; a module's name if it is the only one.
OWNERS: dict[str, set[str]] = {
    "typer": {"cli"},
    "rich": {"cli"},
    "questionary": {"cli"},
    "prompt_toolkit": {"cli"},
    "torch": {"engine", "pocket"},
    "diffusers": {"engine", "pocket"},
    "transformers": {"engine", "pocket"},
    "peft": {"engine"},
    "accelerate": {"engine"},
    "bitsandbytes": {"engine"},
    "triton": {"engine"},
    "safetensors": {"engine", "pocket"},
    "huggingface_hub": {"engine"},
    "numpy": {"photos", "engine", "pocket"},
    "PIL": {"photos", "engine", "pocket"},
    "pi_heif": {"photos"},
    "dlib": {"photos"},
    "platformdirs": {"root"},
    "tomlkit": {"root"},
    "filelock": {"root"},
    "psutil": {"root"},
    "packaging": {"root"},
    "pynvml": {"gpu.py"},
    "tokenizers": {"identifier.py"},
}
# Imported inside the function that needs it, in whatever layer.
DEFERRED = {"pynvml", "tokenizers", "bitsandbytes", "pi_heif", "dlib"}
SLOW = ("torch", "diffusers", "transformers", "accelerate", "peft", "bitsandbytes", "numpy", "PIL", "pi_heif", "dlib")
SLOW_TOO = ("safetensors", "huggingface_hub", "tokenizers", "questionary", "prompt_toolkit")
COMMANDS = ("init", "prep", "train", "generate", "export", "push", "models", "projects")


@dataclass(frozen=True)
class Import:
    """One import in a file: the full name of its module, and whether it is executed when the file is imported."""

    module: str
    line: int
    at_top: bool


FILES = sorted(PACKAGE.rglob("*.py"))
pytestmark = pytest.mark.skipif(not FILES, reason="the package is not beside the tests")


def layer_of(parts: tuple[str, ...]) -> str:
    """The layer of a module by its path within the package; `python -m dreambooth_cli` is the command line's."""
    if parts in ((), ("__main__",)):  # the package itself only has its public API
        return "cli"
    if parts == ("api",):
        return "workflows"
    if parts[:1] == ("pocket",):
        return "photos" if parts[1:] in ((), ("world",)) else "pocket"
    return parts[0] if parts and parts[0] in LAYERS else "root"


def module_parts(file: Path) -> tuple[str, ...]:
    """`engine/device.py` -> ("engine", "device"); a package's `__init__.py` is the package."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


@cache
def tree_of(file: Path) -> ast.Module:
    """A file's syntax tree, read once."""
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports_of(file: Path) -> tuple[Import, ...]:
    """Every import in a file, with relative ones spelled out, including those inside functions or only for types."""
    return tuple(_imports_below(file, tree_of(file), at_top=True))


def _imports_below(file: Path, node: ast.AST, *, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield from (Import(f"{_spelled_out(file, child)}.{alias.name}", child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            later |= isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
            yield from _imports_below(file, child, at_top=at_top and not later)


def _spelled_out(file: Path, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    folder = ("dreambooth_cli", *file.relative_to(PACKAGE).parts[:-1])
    base = folder[: len(folder) - (node.level - 1)]
    return ".".join((*base, *([node.module] if node.module else [])))


def own_layer(module: str) -> str | None:
    """The layer of an imported module of ours, None for any other."""
    first, *rest = module.split(".")
    return layer_of(tuple(rest)) if first == "dreambooth_cli" else None


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_down_and_libraries_stay_with_their_layer(file: Path) -> None:
    layer = layer_of(module_parts(file))
    wrong = []
    for found in imports_of(file):
        name = found.module.split(".")[0]
        theirs = own_layer(found.module)
        if theirs is not None:
            if LAYERS.index(theirs) > LAYERS.index(layer):
                wrong.append(f"line {found.line}: {layer} imports {found.module}, of the layer above")
        elif name not in sys.stdlib_module_names:
            owners = OWNERS.get(name)
            if owners is None:
                wrong.append(f"line {found.line}: no layer owns {name}")
            elif not owners & {layer, file.relative_to(PACKAGE).as_posix()}:
                wrong.append(f"line {found.line}: {name} belongs to {', '.join(sorted(owners))}, not to {layer}")
            elif name in DEFERRED and found.at_top:
                wrong.append(f"line {found.line}: {name} is imported where it is used, not at the top")
    assert wrong == []


def imported_files() -> dict[Path, set[Path]]:
    """File -> our own files that it imports, including imports inside functions."""
    place = {".".join(("dreambooth_cli", *module_parts(file))): file for file in FILES}
    graph: dict[Path, set[Path]] = {}
    for file in FILES:
        graph[file] = set()
        for found in imports_of(file):
            module = found.module if found.module in place else found.module.rpartition(".")[0]
            if module in place and place[module].name != "__init__.py":
                graph[file].add(place[module])
    return graph


@cache
def room_of(file: Path) -> Path:
    """The folder of a file; files at the top level count as a folder of their own each."""
    beside = [each for each in FILES if file.parent in each.parents and each.parent != file.parent]
    return file if beside else file.parent


def test_no_file_and_no_folder_imports_itself_by_way_of_others() -> None:
    files = imported_files()
    rooms: dict[Path, set[Path]] = {}
    for file, imported in files.items():
        rooms.setdefault(room_of(file), set()).update({room_of(other) for other in imported} - {room_of(file)})
    assert len(rooms[PACKAGE / "workflows"]) > 20
    TopologicalSorter(files).prepare()  # a CycleError names those of a circle
    TopologicalSorter(rooms).prepare()


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_command_line_loads_what_is_slow_inside_a_command(file: Path) -> None:
    """At the top of `cli/` only the command line's own modules and the root layer are imported; the command's body imports the rest."""
    at_top = [found.module for found in imports_of(file) if found.at_top]
    assert [module for module in at_top if own_layer(module) in ("workflows", "pocket", "engine", "photos")] == []


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_a_workflow_is_imported_before_anything_else_in_a_function_is_done_or_while_it_is_said(file: Path) -> None:
    """An import that takes a while is inside `with loading...:`, the only thing that shows a spinner, and nothing else is inside it."""
    late = []
    for function in ast.walk(tree_of(file)):
        if not isinstance(function, ast.FunctionDef):
            continue
        statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
        leading = len(statements)
        for place, statement in enumerate(statements):
            if not isinstance(statement, ast.Import | ast.ImportFrom):
                leading = place
                break
        for statement in statements[leading:]:
            if is_loading(statement):
                continue
            for node in ast.walk(statement):
                if isinstance(node, ast.ImportFrom) and "workflows" in _spelled_out(file, node).split("."):
                    late.append(f"{function.name}, line {node.lineno}")
    assert late == []


def is_loading(statement: ast.stmt) -> bool:
    """Whether this is `with loading(...)` or the like around imports and nothing else."""
    return (
        isinstance(statement, ast.With)
        and ast.unparse(statement.items[0].context_expr).startswith("loading")
        and all(isinstance(each, ast.ImportFrom) for each in statement.body)
    )


@pytest.mark.parametrize(
    "file", sorted((PACKAGE / "cli").glob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_command_line_has_no_workflow_of_its_own(file: Path) -> None:
    """Words in, pictures out: what happens, and in which order, is for the workflows to say."""
    tree = tree_of(file)
    yields = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Yield | ast.YieldFrom)]
    contexts = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "contextmanager" in [ast.unparse(each) for each in node.decorator_list]
    ]
    allowed = {line for node in contexts for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    assert [line for line in yields if line not in allowed] == []
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("load_")] == []


def values_of(function: ast.FunctionDef) -> list[str]:
    """The names of a function's parameters, without the object that it belongs to."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return [each.arg for each in named if each.arg not in ("self", "cls")]


def test_functions_are_short_and_are_given_few_values() -> None:
    """Values that are passed on through function after function deserve a noun of their own (a Recipe, a Base, a Batch)."""
    functions = [node for file in FILES for node in ast.walk(tree_of(file)) if isinstance(node, ast.FunctionDef)]
    lines = sorted((node.end_lineno or 0) - node.lineno + 1 for node in functions)
    assert lines[-1] <= 80
    assert lines[len(lines) * 9 // 10] <= 22
    given_many = [node.name for node in functions if len(values_of(node)) >= 6 and not node.decorator_list]  # a command's are its flags
    assert len(given_many) <= 15, given_many


def test_the_names_of_networks_come_from_the_record_of_the_family() -> None:
    """The names of a family's networks are in its record; code that repeats them elsewhere forgets the next family."""
    naming = [
        file.relative_to(PACKAGE).as_posix()
        for file in FILES
        if not {"pocket", "exports"} & {*file.relative_to(PACKAGE).parts} and '"unet"' in file.read_text(encoding="utf-8")
    ]
    assert naming == ["families/stable_diffusion.py"]


# Methods of transformers' models that duplicate peft's own functions: each requires a peft that may not be out yet.
ASK_FOR_A_PEFT = {
    "add_adapter",
    "set_adapter",
    "enable_adapters",
    "disable_adapters",
    "active_adapters",
    "get_adapter_state_dict",
    "delete_adapter",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_adapters_are_peft_s_own_work(file: Path) -> None:
    called = [
        f"line {node.lineno}: {node.attr}"
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Attribute) and node.attr in ASK_FOR_A_PEFT
    ]
    assert called == []


# What opens a model's files, and which files may: the guarded place, this package's own weights, and the networks that measure.
OPENS = {"from_pretrained", "from_single_file", "from_config", "load_config", "load_lora_weights", "get_tensor", "load_file", "safe_open"}
MAY_OPEN = {
    "engine/families/parts.py",
    "engine/families/lora_file.py",
    "engine/training/checkpoint.py",
    "engine/saving.py",
    # what was just written is opened by the readers that others use
    "engine/exports/single_file.py",
    "engine/exports/folder.py",
    "engine/exports/adapters.py",
    "engine/evaluation.py",
    "engine/families/random_base.py",  # the pocket's own tokenizer
    "pocket/judge.py",
    "pocket/eyes.py",
    "pocket/card.py",
    "pocket/parts.py",
    "pocket/build.py",
}
# where a scheduler is made of another's config
BUILT_FROM_A_LIVE_ONE = {"engine/families/stable_diffusion.py", "engine/families/noising.py", "engine/images/sampling.py"}
NEVER = {"torch.load", "pickle.load", "pickle.loads", "joblib.load"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_models_files_are_opened_in_the_guarded_place_alone(file: Path) -> None:
    name = file.relative_to(PACKAGE).as_posix()
    wrong = []
    for node in ast.walk(tree_of(file)):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        last = called.rpartition(".")[2]
        allowed = name in MAY_OPEN or (last == "from_config" and name in BUILT_FROM_A_LIVE_ONE)
        if called in NEVER or (last in OPENS and not allowed):
            wrong.append(f"line {node.lineno}: {called}")
        if called and any(word.arg in ("trust_remote_code", "custom_pipeline", "weights_only") for word in node.keywords):
            wrong.append(f"line {node.lineno}: {called} is told to run code")
    assert wrong == []


def test_what_is_opened_in_the_guarded_place_is_guarded() -> None:
    """Every call that opens or builds is inside `with refused(...)`, or in a function that is called within `load_pipeline`'s."""
    tree = ast.parse((PACKAGE / "engine" / "families" / "loading.py").read_text(encoding="utf-8"))
    (load,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "load_pipeline"]
    (guard,) = [node for node in load.body if isinstance(node, ast.With)]
    assert ast.unparse(guard.items[0].context_expr).startswith("refused(")
    ours = ("find_files", "build", "fill", "load_scheduler", "load_tokenizers", "try_networks")
    inside = {id(node) for node in ast.walk(guard)}
    loose = [
        f"line {node.lineno}"
        for node in ast.walk(load)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ours and id(node) not in inside
    ]
    assert loose == []
    for file in FILES:
        if file.name not in ("loading.py", "parts.py"):
            imported = {found.module for found in imports_of(file)}
            assert not {f"dreambooth_cli.engine.families.parts.{name}" for name in ours} & imported, file


LOOK = """
import contextlib, io, json, sys
from dreambooth_cli.cli.app import main

loaded = {}
for words in json.loads(sys.argv[1]):
    sys.argv = ["dreambooth", *words]
    code = 0
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    if code or not out.getvalue():
        sys.exit(f"{words} gave {code}: {out.getvalue()} {err.getvalue()}")
    loaded[" ".join(words)] = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(loaded))
"""


def modules_after(*commands: list[str]) -> dict[str, list[str]]:
    """Run commands one after the other in a fresh process: command -> the top-level modules that are loaded after it."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(commands)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_no_help_and_no_version_loads_a_slow_library() -> None:
    commands = [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)]
    for command, modules in modules_after(*commands).items():
        assert set(modules) & {*SLOW, *SLOW_TOO} == set(), command


def test_models_loads_no_slow_library() -> None:
    asked = [["models"], ["models", "--json"], ["models", "--gpu-memory", "8"], ["models", "sd15"]]
    for command, modules in modules_after(*asked).items():
        assert set(modules) & {*SLOW, "questionary", "prompt_toolkit"} == set(), command


# what would unpickle a file, or look for one by its name
UNPICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
READS_ITSELF = {
    "load_lora_weights",
    "load_lora_adapter",
    "load_adapter",
    "load_attn_procs",
    "load_textual_inversion",
    "lora_state_dict",
    "load_peft_weights",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_lora_comes_in_by_one_door_and_a_pickle_by_none(file: Path) -> None:
    """The libraries' own readers fall back to a pickle if they find no safetensors."""
    wrong = [f"line {found.line}: {found.module}" for found in imports_of(file) if found.module.split(".")[0] in UNPICKLES]
    for node in ast.walk(tree_of(file)):
        is_proof = file.parent.name == "exports"  # of a file that was just written, named as safetensors
        if isinstance(node, ast.Attribute) and (
            (node.attr in READS_ITSELF and not is_proof) or ast.unparse(node) == "torch.load"
        ):
            wrong.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".from_pretrained"):
            says = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if "Tokenizer" not in ast.unparse(node.func) and says.get("use_safetensors") != "True":
                wrong.append(f"line {node.lineno}: {ast.unparse(node.func)} may take a pickle: use_safetensors=True")
    assert wrong == []
