"""The image's lock file: each version fits pyproject.toml, each file has its hash."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "deploy/requirements.lock").read_text(encoding="utf-8")
PINS = [
    Requirement(line.removesuffix(" \\")) for line in LOCK.splitlines() if re.match(r"\w", line)
]


def wanted() -> list[str]:
    toml = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = toml["project"]
    extras = project["optional-dependencies"]
    build = toml["build-system"]["requires"]
    return [
        *build,
        *project["dependencies"],
        *extras["offline"],
        *extras["mcp"],
        *extras["postgres"],
        *extras["redis"],
    ]


@pytest.mark.parametrize("dependency", wanted())
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_what_is_needed_is_pinned_to_a_version_that_fits(dependency: str, python: str) -> None:
    need = Requirement(dependency)
    image = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "implementation_name": "cpython",
    }
    if need.marker is not None and not need.marker.evaluate(image):
        return
    pins = [
        pin
        for pin in PINS
        if canonicalize_name(pin.name) == canonicalize_name(need.name)
        and (pin.marker is None or pin.marker.evaluate(image))
    ]
    assert len(pins) == 1, f"`make lock`: {need} has {len(pins)} pins"
    [version] = pins[0].specifier
    assert version.operator == "=="
    assert version.version in need.specifier, f"`make lock`: {pins[0]} is not {need}"


def test_each_pin_has_the_hashes_of_its_files() -> None:
    packages = re.split(r"^(?=\w)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(PINS)
    for package in packages:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}", package, re.MULTILINE), package


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(--(index|extra|find|trusted)|-i |-f )", LOCK, re.MULTILINE)


def test_a_dependency_of_the_project_has_an_upper_bound() -> None:
    for dependency in map(Requirement, wanted()):
        operators = {one.operator for one in dependency.specifier}
        dated = dependency.name in ("tzdata", "hatchling")  # hatchling builds, and is in the lock
        assert dated or operators & {"<", "==", "~="}, dependency
