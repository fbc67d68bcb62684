"""The console's files: what they may hold, and that those of others are as they came."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from app.web.console_routes import FILES, HEADERS

ROOT = Path(__file__).parents[3]
VENDOR = FILES / "vendor"
OWN = sorted(path for path in FILES.rglob("*.js") if VENDOR not in path.parents)


def test_files_of_others_are_as_they_came_and_have_their_licences() -> None:
    rows = (VENDOR / "CHECKSUMS").read_text(encoding="utf-8").splitlines()
    expected = {name: checksum for checksum, name in (row.split() for row in rows)}
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.suffix in (".js", ".css")
    }
    assert found == expected
    assert {path.name for path in VENDOR.glob("LICENSE.*")} == {
        "LICENSE.htm",
        "LICENSE.preact",
        "LICENSE.uplot",
    }


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(FILES).as_posix())
def test_a_module_is_short_and_makes_no_markup_of_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    for forbidden in (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write",
        r"dangerouslySet",
        r"\beval\(|new Function",
        r"https?://(?!www\.w3\.org/2000/svg)",
        r"\bstyle=\"",  # which the policy refuses
    ):
        assert not re.search(forbidden, text), forbidden
    for target in re.findall(r"""(?:\bfrom\s+|import\()["']([^"']+)""", text):
        assert (path.parent / target).is_file(), target


def test_the_page_has_nothing_inline_and_nothing_of_other_sites() -> None:
    page = (FILES / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|//", page)
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(
        policy.split("; ")
    )


def test_what_can_be_degraded_has_a_remedy_in_the_health_view() -> None:
    document = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    [listed] = re.findall(r"\n(`/readyz` lists under `degraded`.*?)\n\n", document, re.DOTALL)
    codes = {*re.findall(r"`([a-z_]+)`", listed)} - {"degraded"}
    assert len(codes) > 4
    view = (FILES / "views" / "health.js").read_text(encoding="utf-8")
    assert {code for code in codes if f"\n  {code}: " not in view} == set()
