"""Landing pads that were sealed, since no pointer leads to them (arch/x86/kernel/alternative.c, apply_seal_endbr).

ed53a0d97192 "x86/alternative: Use .ibt_endbr_seal to seal indirect calls" (5.18): on a processor that enforces them, an
endbr64 whose address is never taken becomes a nop that the kernel can recognise; in modules always.
"""

from hypervigil.linux.text.code import is_any
from hypervigil.linux.text.place import Place
from hypervigil.linux.text.sites import Sites, Table, places_in, sizes

SECTION = ".ibt_endbr_seal"

ENDBR = b"\xf3\x0f\x1e\xfa"
_SEALED = (b"\x66\x0f\x1f\x00", b"\x0f\x1f\x40\xd6", b"\x0f\x1f\x40\x00")


def endbr_sites(place: Place) -> Sites:
    """Every sealed landing pad must be one still, or the nop that seals it."""
    address = places_in(place.code, place.tables.get(SECTION, Table(0, b"")), len(ENDBR))
    rows = place.code.rows(address, len(ENDBR))

    def expected(row: int) -> tuple[bytes, ...]:
        del row
        return (_SEALED[0], ENDBR)

    return Sites(
        kind="endbr",
        address=address,
        size=sizes(len(address), len(ENDBR)),
        states=(("endbr", is_any(rows, ENDBR)), ("sealed", is_any(rows, *_SEALED))),
        legal="endbr64 or the nop that seals it",
        expected=expected,
    )
