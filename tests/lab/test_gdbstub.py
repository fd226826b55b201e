from pathlib import Path

import pytest

from hypervigil.core.errors import UsageError
from hypervigil.core.units import PhysAddr
from hypervigil.lab.gdbstub import GdbStub
from tests.lab.fakes import gdb_server


def test_long_data_goes_in_pieces_and_the_machine_is_let_go(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(bytes(8192))
    with gdb_server(ram) as seen, GdbStub(tmp_path / "gdb") as stub:
        stub.write(PhysAddr(100), bytes(range(1, 251)) * 10)
    assert ram.read_bytes()[100:2600] == bytes(range(1, 251)) * 10
    assert [packet.partition(":")[0] for packet in seen] == [
        "Qqemu.PhyMemMode",
        "M64,400",
        "M464,400",
        "M864,1c4",
        "D",
    ]


def test_a_refusal_is_told(tmp_path: Path) -> None:
    ram = tmp_path / "ram"
    ram.write_bytes(bytes(4096))
    with gdb_server(ram, answer=b"E22"), pytest.raises(UsageError, match="refuses 'Qqemu"):
        GdbStub(tmp_path / "gdb")


def test_a_missing_stub_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot reach"):
        GdbStub(tmp_path / "gdb")
