"""A page as a browser's parser sees it: elements with their attributes and text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"input", "meta", "br", "col", "img", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text inside, but what only hovering shows."""
        inside = (c if isinstance(c, str) else "" if c.tag == "title" else c.text
                  for c in self.children)  # fmt: skip
        return "".join(inside)

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def find(self, tag: str | None = None, **attributes: str) -> list[Element]:
        """Elements inside, with these attributes; `class_` is one of several."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                wanted = {k.rstrip("_").replace("_", "-"): v for k, v in attributes.items()}
                name = wanted.pop("class", None)
                is_it = tag in (None, child.tag) and (name is None or name in child.classes)
                if is_it and all(child.attributes.get(k) == v for k, v in wanted.items()):
                    found.append(child)
                found += child.find(tag, **attributes)
        return found

    def one(self, tag: str | None = None, **attributes: str) -> Element:
        (found,) = self.find(tag, **attributes)
        return found

    def rows(self) -> list[list[str]]:
        """Text of a table's cells."""
        return [[c.text for c in row.children if isinstance(c, Element)] for row in self.find("tr")]


class _Tree(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parse(text: str) -> Element:
    """The page; an element that another's end closes is an AssertionError."""
    tree = _Tree()
    tree.feed(text)
    tree.close()
    assert len(tree._open) == 1
    return tree.root
