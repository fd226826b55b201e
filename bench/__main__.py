"""``make bench``: Hypervigil against Volatility 3 on the same image, its cost against image size, and hostile images.

Writes build/bench/results.json, and docs/explanation/speed.md with its picture.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.hostile import each_kernel
from bench.measure import Cost, best, load, run
from bench.page import write_page
from bench.prepare import make_image, make_kernel, make_symbols
from bench.sizes import each_size

_OUT = Path("build/bench")
_HYPERVIGIL = [str(Path(sys.executable).with_name("hypervigil")), "integrity", "--quiet"]
_HOSTS_MIB = (256, 512)
_PLUGINS = {
    "system calls": "linux.malware.check_syscall.Check_syscall",
    "interrupt table": "linux.malware.check_idt.Check_idt",
    "modules across views": "linux.malware.modxview.Modxview",
    "processes, list": "linux.pslist.PsList",
    "processes, ids": "linux.pidhashtable.PIDHashTable",
}
"""The checks that both do. Volatility lists, and leaves the judging to the reader."""


def main() -> None:
    """Measure, and write the results."""
    options = _options()
    _OUT.mkdir(parents=True, exist_ok=True)
    kernel = make_kernel(options.kernel)
    small, image = (make_image(kernel, mib, _OUT) for mib in _HOSTS_MIB)
    symbols, prepared = make_symbols(image, options.kernel, kernel, _OUT)
    ours = best([*_HYPERVIGIL, str(image)], 5)
    theirs = {name: _volatility(plugin, image, symbols) for name, plugin in _PLUGINS.items()}
    sizes = [(mib, cost) for mib, cost in each_size([small, image], _OUT, _HYPERVIGIL, options.most)]
    results = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {_processor()}, load {load():.1f} while it ran",
        "versions": {"hypervigil": version("hypervigil"), "volatility3": version("volatility3")},
        "image_mib": image.stat().st_size >> 20,
        "symbol_file_seconds": round(prepared, 1),
        "hypervigil": _figures(ours),
        "volatility": {name: _figures(cost) for name, cost in theirs.items()},
        "refused": {name: cost.output.strip()[-300:] for name, cost in theirs.items() if not _answered(cost)},
        "sizes": [{"mib": mib, **_figures(cost)} for mib, cost in sizes],
        "hostile": list(each_kernel(_OUT, _HOSTS_MIB[-1], options.hostile)),
    }
    (_OUT / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    write_page(results)
    print(json.dumps(results, indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--kernel", default="6.1", help="kernel of the lab")
    parser.add_argument("--most", type=int, default=16384, help="largest image, MiB")
    parser.add_argument("--hostile", type=int, default=1000, help="how many mutated images")
    return parser.parse_args()


def _volatility(plugin: str, image: Path, symbols: Path) -> Cost:
    command = [str(Path(sys.executable).with_name("vol")), "-q", "-s", str(symbols), "-f", str(image), plugin]
    run(command)  # its own cache of symbol files is warm afterwards
    return best(command, 2)


def _answered(cost: Cost) -> bool:
    return cost.status == 0 and "Traceback" not in cost.output and "Unsatisfied" not in cost.output


def _figures(cost: Cost) -> dict[str, float | int]:
    return {
        "status": cost.status,
        "seconds": round(cost.seconds, 2),
        "processor_seconds": round(cost.processor, 2),
        "peak_mib": round(cost.peak),
    }


def _processor() -> str:
    done = subprocess.run(["nproc"], capture_output=True, check=True)
    return f"{done.stdout.decode().strip()} processors"


main()
