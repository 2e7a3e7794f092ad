"""The limits: their defaults, and the values that they accept."""

from __future__ import annotations

import math
import pydoc
import re
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from trio_upgrade import Limits

NAMES = list(vars(Limits()))


def test_defaults() -> None:
    """The defaults are documented, so a change of one is a decision."""
    assert vars(Limits()) == {
        "header_bytes": 32768,
        "header_fields": 1000,
        "body_bytes": 1048576,
        "drain_body": 65536,
        "refusal_body": 65536,
        "informational": 16,
        "read_ahead": 65536,
        "connections": 10000,
        "upgraded": None,
        "requests_per_connection": None,
        "header_timeout": 10.0,
        "keep_alive_timeout": 5.0,
        "body_timeout": 30.0,
        "body_progress": 1024,
        "response_timeout": None,
        "send_timeout": 30.0,
        "continue_timeout": 1.0,
        "linger": 2.0,
    }


@pytest.mark.parametrize("name", NAMES)
def test_negative(name: str) -> None:
    """A limit may be zero but not negative."""
    with pytest.raises(ValueError, match="must not be negative") as caught:
        Limits(**{name: -1})

    assert str(caught.value) == f"{name} must not be negative, not -1"
    assert getattr(Limits(**{name: 0}), name) == 0
    with pytest.raises(ValueError, match=f"^{name} "):
        Limits(**{name: -0.5})  # type: ignore[arg-type]


def test_linger_without_limit() -> None:
    """None and infinity both disable the limit on lingering."""
    assert Limits(linger=None).linger is None
    assert Limits(linger=math.inf).linger == math.inf


@pytest.mark.parametrize("name", NAMES)
def test_immutable(name: str) -> None:
    """One object is shared by many connections, so it cannot be changed."""
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        setattr(limits, name, 1)
    with pytest.raises(FrozenInstanceError):
        delattr(limits, name)

    assert limits == Limits()
    assert hash(limits) == hash(Limits())


@pytest.mark.ids("F39")
@pytest.mark.parametrize(("given", "kind"), [(3, "int"), ({"linger": 1}, "dict")])
def test_keyword_only(given: object, kind: str) -> None:
    """Limits are given by name: positional numbers would say nothing to a reader."""
    make: Any = Limits
    with pytest.raises(TypeError) as caught:
        make(given)

    assert str(caught.value) == (
        f"limits are given by name, as in Limits(header_bytes=...), not {kind} alone; "
        "the names are header_bytes, header_fields, body_bytes and others: "
        "see help(Limits)"
    )


@pytest.mark.ids("F39")
def test_unknown() -> None:
    """A misspelt limit is refused, and the right name is suggested."""
    with pytest.raises(
        TypeError, match=r"no limit 'lingers'\. Did you mean 'linger'\?$"
    ):
        Limits(lingers=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"there is no limit 'xyzzy'$"):
        Limits(xyzzy=1)  # type: ignore[call-arg]


@pytest.mark.ids("F39")
@pytest.mark.parametrize("value", ["3", "a", b"1", [], True, False])
@pytest.mark.parametrize("name", NAMES)
def test_type(name: str, value: object) -> None:
    """A value of another type is named with what was wanted."""
    none = r"( or None)?"
    with pytest.raises(
        TypeError, match=f"^{name} must be a number{none}, not "
    ) as caught:
        Limits(**{name: value})  # type: ignore[arg-type]

    assert str(caught.value).endswith(f"not {value!r}")


@pytest.mark.ids("F39")
@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers(name: str) -> None:
    """Bytes and counts are whole numbers; seconds need not be."""
    if isinstance(getattr(Limits(), name), float) or name == "response_timeout":
        assert getattr(Limits(**{name: 1.5}), name) == 1.5  # type: ignore[arg-type]
        return
    for value in (1.5, 1e6, math.inf):
        with pytest.raises(TypeError, match=f"^{name} must be an int, not {value}"):
            Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.ids("F39")
def test_disabling() -> None:
    """The message says how a count is disabled."""
    with pytest.raises(TypeError, match=r"not inf; None disables it$"):
        Limits(connections=math.inf)  # type: ignore[arg-type]


@pytest.mark.ids("F39")
def test_help() -> None:
    """help() describes each limit: unit or meaning, and whether None disables it."""
    shown = pydoc.plain(pydoc.render_doc(Limits))
    described = " ".join(
        shown.partition("Attributes:")[2].partition("Raises:")[0].split()
    )
    texts = re.split(
        r"(?:^|(?<= ))\|? ?(\w+): (?=[A-Z])", described.replace(" | ", " ")
    )
    found = dict(zip(texts[1::2], texts[2::2], strict=True))

    assert [*found] == NAMES
    for name, text in found.items():
        kind = Limits.__annotations__[name]
        assert ("Cannot be None" in text) != ("None disables" in text), name
        assert ("None disables" in text) == ("None" in kind), name
        if name.endswith("timeout") or name == "linger":
            assert text.startswith("Seconds "), name
        else:
            assert re.match("The longest|The largest|How many", text), name
        # The default stands in the code alone, and help() shows it.
        assert re.search(
            rf"\b{name} = {re.escape(repr(getattr(Limits(), name)))}\n", shown
        )


@pytest.mark.parametrize(
    "limits", [{"header_bytes": None}, {"body_bytes": "1"}, {"linger": "2"}]
)
def test_not_a_number(limits) -> None:
    """None for a limit that cannot be disabled, and other types, are refused."""
    with pytest.raises(TypeError, match=f"{next(iter(limits))} must be a number"):
        Limits(**limits)
