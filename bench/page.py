"""The results as a page of the documentation, with a picture."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "hypervigil"

import matplotlib.pyplot as plt  # noqa: E402 - after the backend is chosen

_PAGE = Path("docs/explanation/speed.md")
_PICTURE = Path("docs/explanation/speed.svg")


def write_page(results: dict[str, Any]) -> None:
    """Write docs/explanation/speed.md and speed.svg."""
    slope, base = _fit(results["sizes"])
    _picture(results["sizes"], slope, base)
    lines = [*_against_volatility(results), *_against_size(results["sizes"], slope, base)]
    _PAGE.write_text("\n".join(lines))


def _against_volatility(results: dict[str, Any]) -> list[str]:
    ours = results["hypervigil"]
    theirs = results["volatility"]
    total = sum(row["seconds"] for row in theirs.values())
    return [
        "# Speed and memory",
        "",
        (
            f"Measured by `make bench` on {results['date']} ({results['machine']}), Hypervigil "
            f"{results['versions']['hypervigil']} against Volatility {results['versions']['volatility3']}, on the same "
            f"{results['image_mib']} MiB image in one run. Best of several runs; compare ratios, not seconds."
        ),
        "",
        "## Against Volatility 3",
        "",
        (
            "Volatility needs a symbol file of exactly this kernel. Making it from the debug package took "
            f"{results['symbol_file_seconds']} s, which is not counted below. Hypervigil needs none, and its figure is"
        ),
        "for its whole verdict: all checks, the digest of the image, and the interpreter's start.",
        "",
        "| what | seconds | peak memory, MiB | times slower |",
        "|---|---|---|---|",
        f"| Hypervigil, all checks | {ours['seconds']} | {ours['peak_mib']} | 1 |",
        *(
            f"| Volatility, {name} | {row['seconds']} | {row['peak_mib']} | {row['seconds'] / ours['seconds']:.1f} |"
            for name, row in theirs.items()
        ),
        f"| Volatility, these together | {total:.2f} | | {total / ours['seconds']:.1f} |",
        "",
        *[f"Volatility refused: {name}: `{why}`" for name, why in results["refused"].items()],
    ]


def _against_size(rows: list[dict[str, Any]], slope: float, base: float) -> list[str]:
    return [
        "## Against the size of the image",
        "",
        "![cost against size](speed.svg)",
        "",
        "| MiB | seconds | peak memory, MiB |",
        "|---|---|---|",
        *(f"| {row['mib']} | {row['seconds']} | {row['peak_mib']} |" for row in rows),
        "",
        f"The line is {base:.2f} s + {slope:.2f} s for each GiB. The constant is the interpreter's start and the",
        "judging, which reads some thousand pages however large the image is. The slope is what must touch all of it:",
        "its digest (SHA-256 over 4 MiB chunks, two threads) and the search for VMCOREINFO (two words a page).",
        "Memory does not grow with the image, since a scan lets its pages go again.",
        "",
    ]


def _fit(rows: list[dict[str, Any]]) -> tuple[float, float]:
    sizes = np.array([row["mib"] / 1024 for row in rows])
    seconds = np.array([row["seconds"] for row in rows])
    if len(rows) < 2:
        return 0.0, float(seconds[0])
    slope, base = np.polyfit(sizes, seconds, 1)
    return float(slope), float(base)


def _picture(rows: list[dict[str, Any]], slope: float, base: float) -> None:
    sizes = [row["mib"] / 1024 for row in rows]
    figure, left = plt.subplots(figsize=(7, 3.6))
    left.plot(sizes, [row["seconds"] for row in rows], "o", color="#1f5f8b", label="verdict")
    left.plot(sizes, [base + slope * size for size in sizes], "-", color="#1f5f8b", alpha=0.4, label="fitted line")
    left.set_xlabel("image, GiB")
    left.set_ylabel("seconds")
    left.set_ylim(bottom=0)
    left.legend(loc="upper left", frameon=False)
    right = left.twinx()
    right.plot(sizes, [row["peak_mib"] for row in rows], "s", color="#b35c00")
    right.set_ylabel("peak memory, MiB", color="#b35c00")
    right.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(_PICTURE, metadata={"Date": None})
