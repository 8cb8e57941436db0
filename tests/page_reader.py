"""A page as a test sees it."""

from __future__ import annotations

import html.parser
import re

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(html.parser.HTMLParser):
    """Text, tags and attributes of a page; raises where tags don't match."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(source)
        assert not self.open, f"never closed: {self.open}"

    @property
    def text(self) -> str:
        """All text but the style sheet, spaces as one."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    def section(self, name: str) -> Page:
        """One section of the page."""
        found = re.search(rf'<section id="{name}">.*?</section>', self.source, re.DOTALL)
        assert found, f"no section {name}"
        return Page(found[0])

    def of(self, tag: str, class_: str = "") -> list[dict[str, str]]:
        """Attributes of the elements of a tag with a class."""
        return [
            attributes
            for name, attributes in self.tags
            if name == tag and (not class_ or class_ in attributes.get("class", "").split())
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
