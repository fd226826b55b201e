import pytest

from hypervigil.core.units import VirtAddr
from hypervigil.lab.errors import NotApplicable
from hypervigil.lab.symbols import parse_kallsyms

TEXT = """\
ffffffff81000000 T _text
ffffffff81000040 t twice
ffffffff81000020 t early
ffffffffc0100000 t twice\t[kvm]
ffffffffc0100080 d last\t[kvm]
"""


def test_names_are_found_in_their_module() -> None:
    symbols = parse_kallsyms(TEXT)
    assert symbols.find("twice").address == 0xFFFF_FFFF_8100_0040
    assert symbols.find("nothing", "twice", module="kvm").address == 0xFFFF_FFFF_C010_0000
    assert [symbol.name for symbol in symbols.listed][:3] == ["_text", "twice", "early"]
    assert [symbol.name for symbol in symbols][:3] == ["_text", "early", "twice"]


def test_a_symbol_ends_where_the_next_begins() -> None:
    symbols = parse_kallsyms(TEXT)
    assert symbols.end(symbols.find("early")) == 0xFFFF_FFFF_8100_0040
    assert symbols.end(symbols.find("last")) == 0xFFFF_FFFF_C010_0088


def test_an_address_is_named_by_the_symbol_before_it() -> None:
    symbols = parse_kallsyms(TEXT)
    assert symbols.name_of(VirtAddr(0xFFFF_FFFF_8100_0044)) == "twice+0x4"
    assert symbols.name_of(VirtAddr(0x1000)) == "0x1000"


def test_a_missing_symbol_makes_a_scenario_not_applicable() -> None:
    with pytest.raises(NotApplicable, match="no symbol a or b"):
        parse_kallsyms(TEXT).find("a", "b")
