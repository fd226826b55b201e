"""Where the kernel goes on after a fault that it expected (lib/extable.c, arch/x86/mm/extable.c).

``struct exception_table_entry`` begins with the distances to the faulting instruction and to where to go on; both lie
in the text of the object that has the table. Whoever changes the second gets control at the next such fault.
"""

from collections.abc import Mapping

from hypervigil.linux.text.code import moved
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table, column, sizes

SECTION = "__ex_table"

_ENTRY = 12
_FIXUP_AT = 4


def targets(tables: Mapping[str, Table]) -> list[int]:
    """Where the entries of an object's table lead."""
    found: list[int] = moved(*column(tables.get(SECTION, Table(0, b"")), _ENTRY, _FIXUP_AT)).tolist()
    return found


def exception_sites(place: Place) -> Sites:
    """Every entry must lead from this object's text back into it; the site is the entry itself, which is data."""
    table = place.tables.get(SECTION, Table(0, b""))
    places, distance = column(table, _ENTRY, 0)
    inside = place.code.holds(moved(places, distance), 1)
    fixups, distance = column(table, _ENTRY, _FIXUP_AT)
    target = moved(fixups, distance)
    address, target = fixups[inside], target[inside]

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return ()

    return Sites(
        kind="exception table",
        address=address,
        size=sizes(len(address), 4),
        states=(("own text", (target >= place.code.start) & (target < place.code.end)),),
        legal="a distance to text of the same object",
        expected=expected,
    )
