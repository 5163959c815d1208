"""The distribution: what the wheel holds, whether it runs outside the checkout, names and pins."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from framefold.codecs.base import Codec
from framefold.pipeline.stage import Stage

ROOT = Path(__file__).parents[1]
LAYERS = ("pipeline", "codecs", "stages")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "docs", "tools", "src", *LAYERS)
"""All that a wheel is made of."""
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ACCELERATOR_PACKAGES = ("cuda", "nvidia", "triton")
"""Come with some builds of torch and not with others; each build says itself which versions it needs."""
BASES: dict[str, type[Any]] = {"stages": Stage, "codecs": Codec}

IMAGES = """\
pipeline: tiny
stages:
  pictures: {stage: image_source, path: "pictures"}
  fitted:   {stage: fit, inputs: [pictures], codec: {name: siren, width: 8, depth: 2}, budget: {steps: 20}}
  symbols:  {stage: quantize, inputs: [fitted]}
  bits:     {stage: entropy_encode, inputs: [symbols]}
  archive:  {stage: archive_sink, inputs: [bits], path: tiny.fold}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout and nothing stale gets in."""
    copy = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, copy / name)
    dist = tmp_path_factory.mktemp("dist")
    run(
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(dist),
        str(copy),
        folder=copy,
    )
    (built,) = dist.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own."""
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-index", "--target", str(target), str(wheel), folder=target)
    return target


def run(*command: str, folder: Path, first: Path | None = None, code: int = 0) -> str:
    """Standard output of a command run in `folder`, with `first` before all other places to import from."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": str(first)} if first else {})
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def sources() -> Iterator[str]:
    """Every module of the three folders, as it lies in a wheel."""
    for layer in LAYERS:
        for path in (ROOT / layer).rglob("*.py"):
            yield f"framefold/{path.relative_to(ROOT).as_posix()}"


def entry_points(group: str) -> dict[str, str]:
    found: dict[str, str] = PROJECT["entry-points"][f"framefold.{group}"]
    return found


# The wheel


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    carried = {f"framefold/pipeline/archive/spec/archive-{page}.md" for page in ("format", "parity")}
    assert names == {*sources(), *carried, "framefold/__init__.py", "framefold/py.typed"}


def test_the_wheel_states_licence_version_and_entry_points(wheel: Path) -> None:
    info = f"framefold-{PROJECT['version']}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
        metadata = archive.read(f"{info}/METADATA").decode()
        registered = archive.read(f"{info}/entry_points.txt").decode()
    assert "License-Expression: Apache-2.0" in metadata
    assert f"Requires-Python: {PROJECT['requires-python']}" in metadata
    for group in BASES:
        assert all(f"{name} = {value}" in registered.splitlines() for name, value in entry_points(group).items())


def test_the_wheel_is_for_any_platform(wheel: Path) -> None:
    assert wheel.name == f"framefold-{PROJECT['version']}-py3-none-any.whl"


def test_the_installed_wheel_is_what_gets_imported(installed: Path, tmp_path: Path) -> None:
    modules = ", ".join(f"framefold.{layer}" for layer in LAYERS)
    program = f"import framefold, {modules}; print(framefold.__file__); print(framefold.__version__)"
    program += "".join(f"; print(framefold.{layer}.__file__)" for layer in LAYERS)
    first, version, *others = run(sys.executable, "-c", program, folder=tmp_path, first=installed).splitlines()
    assert version == PROJECT["version"]
    assert [path for path in (first, *others) if not Path(path).is_relative_to(installed)] == []


def test_the_installed_command_lists_all_plugins(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "pipeline")
    listed = run(command, "plugins", folder=tmp_path, first=installed)
    missing = [name for group in BASES for name in entry_points(group) if not re.search(rf"\b{name}\b", listed)]
    assert missing == []


@pytest.mark.slow
def test_the_installed_command_archives_a_picture_and_gives_it_back(installed: Path, tmp_path: Path) -> None:
    command = str(installed / "bin" / "pipeline")
    (tmp_path / "tiny.yaml").write_text(IMAGES)
    picture = min((ROOT / "examples" / "images").glob("*.[jp][pn]g"), key=lambda path: path.stat().st_size)
    (tmp_path / "pictures").mkdir()
    shutil.copy(picture, tmp_path / "pictures")
    assert run(command, "check", "tiny.yaml", folder=tmp_path, first=installed).startswith("ok: ")
    run(command, "run", "tiny.yaml", "--local", folder=tmp_path, first=installed)
    run(command, "decode", "tiny.fold", "decoded", folder=tmp_path, first=installed)
    assert [path.stem for path in (tmp_path / "decoded").iterdir()] == [picture.stem]


# Registered names


@pytest.mark.parametrize("group", BASES)
def test_every_entry_point_is_a_class_of_its_kind(group: str) -> None:
    for name, value in entry_points(group).items():
        loaded = importlib.metadata.EntryPoint(name, value, f"framefold.{group}").load()
        assert issubclass(loaded, BASES[group]), value
        assert not inspect.isabstract(loaded), value


def test_every_codec_bears_its_registered_name() -> None:
    for name, value in entry_points("codecs").items():
        assert importlib.metadata.EntryPoint(name, value, "framefold.codecs").load().name == name


def test_the_command_can_be_called() -> None:
    for name, value in PROJECT["scripts"].items():
        assert callable(importlib.metadata.EntryPoint(name, value, "console_scripts").load())


@pytest.mark.parametrize("group", BASES)
def test_files_and_entry_points_match_one_to_one(group: str) -> None:
    """A file with a stage or a codec in it is registered under its own name, and the class is named alike."""
    found = {}
    for module_name in modules_of(group):
        classes = list(concrete_classes(module_name, BASES[group]))
        special = {kind for kind in classes if not set(kind.__mro__[1:]).isdisjoint(classes)}  # what one turns into
        for concrete in set(classes) - special:
            assert module_name not in found, f"{module_name} defines two of them: give each its own file"
            found[module_name] = f"{module_name}:{concrete.__name__}"
    registered = {f"framefold.{group}.{name}": value for name, value in entry_points(group).items()}
    assert found == registered, "add the missing line to pyproject.toml, then install again"
    for name, value in entry_points(group).items():
        assert value.partition(":")[2].lower() == name.replace("_", "")


def test_what_is_installed_here_is_what_pyproject_says() -> None:
    """An editable install keeps the entry points of the day it was made."""
    for group in BASES:
        here = {
            point.name: point.value
            for point in importlib.metadata.entry_points(group=f"framefold.{group}")
            if point.dist is not None and point.dist.name == "framefold"
        }
        assert here == entry_points(group), "pyproject.toml has changed since: pip install -e . again"


def modules_of(group: str) -> Iterator[str]:
    package = importlib.import_module(f"framefold.{group}")
    return (module.name for module in pkgutil.iter_modules(package.__path__, f"framefold.{group}."))


def concrete_classes(module_name: str, base: type[Any]) -> Iterator[type[Any]]:
    """Subclasses defined in this very module; abstract ones and those with an underscore are helpers."""
    for name, value in vars(importlib.import_module(module_name)).items():
        own = isinstance(value, type) and value.__module__ == module_name
        if own and issubclass(value, base) and not inspect.isabstract(value) and not name.startswith("_"):
            yield value


# Pins


def test_every_package_that_gets_installed_is_pinned() -> None:
    """constraints.txt covers what the package and its dev extra need, and what those need in turn."""
    lines = (ROOT / "constraints.txt").read_text().split()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    assert sorted(required("framefold", frozenset({"dev"})) - pinned - {"framefold"}) == []


def required(distribution: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """Names of everything that a distribution needs here, directly or not, itself included."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(canonicalize_name(distribution), extras)]
    while waiting:
        name, wanted = one = waiting.pop()
        if one not in seen:
            seen.add(one)
            needs = map(Requirement, importlib.metadata.requires(name) or ())
            waiting += [
                (canonicalize_name(need.name), frozenset(need.extras)) for need in needs if applies(need, wanted)
            ]
    return {name for name, _ in seen}


def applies(need: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement counts on this machine with these extras of the one that states it."""
    if need.name.startswith(ACCELERATOR_PACKAGES):
        return False
    return need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""})
