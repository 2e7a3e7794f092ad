"""The site that `nox -s docs` has built: the public names, and nothing from elsewhere."""

from __future__ import annotations

import os
import re
import zlib
from importlib import import_module
from pathlib import Path

import pytest

SITE = Path(os.environ.get("SITE", ""))
MODULES = (
    "trio_upgrade",
    "trio_upgrade.asgi",
    "trio_upgrade.carrier",
    "trio_upgrade.proxy",
    "trio_upgrade.testing",
    "trio_upgrade.websocket",
)
# What a page loads by itself, which a link to follow is not.
LOADED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)="([^"]*)\"""")

pytestmark = pytest.mark.skipif(not os.environ.get("SITE"), reason="run nox -s docs")


def inventory() -> dict[str, str]:
    """Return the names of Python in objects.inv, with their kinds."""
    content = (SITE / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(content).decode().splitlines()
    entries = [line.split(" ")[:2] for line in lines]
    return {name: kind for name, kind in entries if kind.startswith("py:")}


def pages() -> list[Path]:
    """Return the pages of the site."""
    return sorted(SITE.rglob("*.html"))


def test_every_public_name_and_no_other() -> None:
    """The inventory has each public name by its public path, and no other."""
    public = {
        f"{module}.{name}"
        for module in MODULES
        for name in vars(import_module(module))["__all__"]
    }
    members = ("py:attribute", "py:method", "py:property")
    found = {
        name
        for name, kind in inventory().items()
        if kind not in members and kind != "py:module"
    }

    assert found == public
    for name, kind in inventory().items():
        # A member is one of a public class.
        assert kind not in members or name.rpartition(".")[0] in public
        assert not any(part.startswith("_") for part in name.split("."))


@pytest.mark.parametrize("name", ["Limits", "ServeOptions", "DialOptions"])
def test_every_option_is_described(name: str) -> None:
    """Each limit and each option can be linked, and has a text of its own."""
    kind = getattr(import_module("trio_upgrade"), name)
    names = {f"trio_upgrade.{name}.{option}" for option in kind.__annotations__}
    html = "".join(path.read_text() for path in (SITE / "reference").glob("*.html"))

    assert names
    assert names <= set(inventory())
    for option in names:
        described = html.partition(f'id="{option}"')[2].partition("<dd>")[2]
        text = re.sub(r"<.*?>", "", described.partition("</dd>")[0]).strip()
        assert len(text.split()) > 4, option


def test_async_is_marked() -> None:
    """How a name is called stands before it: await, async with."""
    serving = (SITE / "reference" / "serving.html").read_text()
    text = re.sub(r"<.*?>", "", serving)

    assert "await trio_upgrade.serve_tcp(" in text


def test_pages_load_nothing_from_elsewhere() -> None:
    """All scripts, styles, pictures and fonts are files of the site."""
    assert len(pages()) > 50
    for path in pages():
        for url in LOADED.findall(path.read_text()):
            assert not re.match(r"(?:\w+:)?//", url), (path, url)
            if not url.startswith(("#", "data:")) and "rel=" not in url:
                target = url.partition("?")[0].partition("#")[0]
                assert (path.parent / target).exists(), (path, url)
    for path in SITE.rglob("*.css"):
        assert not re.search(
            r"(?:url\(['\"]?|@import ['\"]?)(?:\w+:)?//", path.read_text()
        )


def test_blocks_can_be_copied() -> None:
    """Blocks have a button to copy them; what a program prints has none."""
    page = (SITE / "tutorial" / "echo.html").read_text()
    settings = (SITE / "_static" / "copybutton.js").read_text()

    assert "_static/copybutton.js" in page
    assert 'class="highlight-text' in page
    assert "div:not(.highlight-text)" in settings


def test_footer_names_the_owner() -> None:
    """The footer of each page says whose it is and under which licence."""
    for path in pages():
        assert "The trio_upgrade developers. MIT or Apache-2.0" in path.read_text(), (
            path
        )


def test_tables_of_prose_name_their_columns() -> None:
    """On narrow screens rows become blocks: each cell has the name of its column."""
    limits = (SITE / "topics" / "limits.html").read_text()
    figures = (SITE / "topics" / "benchmarks.html").read_text()

    assert '<span class="column">default</span>' in limits
    # A table of figures stays one.
    assert "<p>÷ Node</p>" in figures
    assert '<span class="column">÷ Node</span>' not in figures


def test_title_can_be_broken() -> None:
    """The name of a module in a title is broken after its dot."""
    page = (SITE / "reference" / "proxy.html").read_text()

    assert "<h1>trio_upgrade.<wbr>proxy" in page
    assert "<title>trio_upgrade.proxy" in page


def test_search_works_offline() -> None:
    """The index of the search is a file of the site, and knows the pages."""
    index = (SITE / "searchindex.js").read_text()

    for word in "websocket", "nginx", "timeout", "half_close_timeout":
        assert word in index.lower()


def test_pictures_have_words() -> None:
    """Each picture says in words what it shows."""
    for path in pages():
        for picture in re.findall(r"<(?:svg|img)\b[^>]*>", path.read_text()):
            if 'role="img"' in picture or picture.startswith("<img"):
                assert re.search(r'(?:aria-label|alt)="[^"]+"', picture), (
                    path,
                    picture,
                )
