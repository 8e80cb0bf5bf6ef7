"""The page itself: nothing from outside, nothing that the policy forbids, and all of it in the package."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

from seqtok.explorer import app
from tests.house import ROOT

PAGE = Path(app.__file__).parent / "page"
FILES = sorted(PAGE.iterdir())


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed((PAGE / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_nothing_outside_is_referenced():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?:|[\"'(]//|@import|url\(", text), file.name
    for tag, attributes in Elements().found:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith("/page/") or value == "data:,", (tag, value)


def test_what_is_referenced_is_there():
    named = {str(a.get(name)) for _, a in Elements().found for name in ("src", "href") if a.get(name)}
    for file in FILES:
        if file.suffix == ".js":
            imported = re.findall(r'from "\./([^"]+)"', file.read_text(encoding="utf-8"))
            named |= {f"/page/{name}" for name in imported}
    assert {f"/page/{file.name}" for file in FILES} == named - {"data:,"} | {"/page/index.html"}


def test_texts_are_never_markup_and_no_script_or_style_is_inline():
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    for tag, attributes in Elements().found:
        assert tag != "style"
        assert not any(name == "style" or name.startswith("on") for name in attributes)


def test_ids_are_there_and_every_field_has_a_label():
    elements = Elements().found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for file in FILES:
        if file.suffix == ".js":
            asked = re.findall(r'(?:get|getElementById|slider)\("([^"$]+)"', file.read_text(encoding="utf-8"))
            assert set(asked) <= set(ids), file.name
    pointed = {
        value for _, a in elements for name in ("for", "aria-controls", "aria-labelledby") if (value := a.get(name))
    }
    assert pointed <= set(ids)
    labelled = {attributes.get("for") for tag, attributes in elements if tag == "label"}
    for tag, attributes in elements:
        if tag in ("input", "select", "textarea"):
            assert attributes.get("type") == "checkbox" or attributes["id"] in labelled


def test_the_page_is_in_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "page/*" in project["tool"]["setuptools"]["package-data"]["seqtok.explorer"]
    assert {file.suffix for file in FILES} == {".html", ".css", ".js"}
