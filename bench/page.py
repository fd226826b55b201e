"""The results as a page of the documentation, with a picture."""

import textwrap
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
    lines = [
        *_against_volatility(results),
        *_against_size(results["sizes"], slope, base),
        *_hostile(results["hostile"]),
    ]
    _PAGE.write_text("\n".join(wrapped for line in lines for wrapped in _wrap(line)))


def _wrap(line: str) -> list[str]:
    """A paragraph of the page in lines of the house's length; tables and pictures stay whole."""
    return [line] if line.startswith(("|", "!", "#")) or not line else textwrap.wrap(line, 120)


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
            f"{results['symbol_file_seconds']} s, which is not counted below. Hypervigil needs none. Its figure is for "
            "its whole verdict: all checks, the digest of the image, and the interpreter's start. Volatility runs one "
            "plugin at a time, each with its own start, its symbol files already in its cache; it lists, and leaves "
            "the judging to the reader."
        ),
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
        *([""] if results["refused"] else []),
    ]


def _against_size(rows: list[dict[str, Any]], slope: float, base: float) -> list[str]:
    return [
        "## Against the size of the image",
        "",
        (
            "The images of 256 and 512 MiB are of hosts of that size that hold random data in six tenths of it; larger "
            "ones are that host's memory with other memory behind it, two thirds random and the rest zero."
        ),
        "",
        "![cost against size](speed.svg)",
        "",
        "| MiB | seconds | peak memory, MiB |",
        "|---|---|---|",
        *(f"| {row['mib']} | {row['seconds']} | {row['peak_mib']} |" for row in rows),
        "",
        (
            f"The line is {base:.2f} s + {slope:.2f} s for each GiB. The constant is the interpreter's start and the "
            "judging, which follows page tables and pointers and reads only what they lead to, however large the image "
            "is. The slope is what must touch all of it: its digest (SHA-256 over 4 MiB chunks, two threads) and the "
            "search for VMCOREINFO (two words a page). Memory does not grow with the image, since a scan lets its "
            "pages go again; it is counted as resident memory, with the part of the image that is mapped at the time."
        ),
        "",
    ]


def _hostile(rows: list[dict[str, Any]]) -> list[str]:
    return [
        "## On hostile images",
        "",
        (
            f"{sum(row['images'] for row in rows)} images of {len(rows)} kernels, in each of which one to eight of the "
            "pages that the judging reads are altered: noise, zeros, turned bits, counts of 2^63, pointers to "
            "themselves and to each other. The figures are ratios to the time of the image as it was. All are "
            "judged in one process; its peak memory is that after all images so far. None ended with an error of the "
            "program: the measuring stops at one."
        ),
        "",
        "| kernel | images | clean, seconds | median | worst | peak memory, MiB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['kernel']} | {row['images']} | {row['clean_seconds']} | {row['median']} | {row['worst']} "
            f"| {row['peak_mib']} |"
            for row in rows
        ),
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
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2))
    left.plot(sizes, [base + slope * size for size in sizes], "-", color="#1f5f8b", alpha=0.4)
    left.plot(sizes, [row["seconds"] for row in rows], "o", color="#1f5f8b")
    left.set_title(f"{base:.2f} s + {slope:.2f} s for each GiB", fontsize="medium")
    left.set_ylabel("verdict, seconds")
    right.plot(sizes, [row["peak_mib"] for row in rows], "o", color="#b35c00")
    right.set_title(
        f"{rows[-1]['peak_mib'] - rows[0]['peak_mib']:+} MiB from the smallest to the largest", fontsize="medium"
    )
    right.set_ylabel("peak memory, MiB")
    right.set_ylim(top=1.2 * max(row["peak_mib"] for row in rows))
    for panel in (left, right):
        panel.set_xlabel("image, GiB")
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(_PICTURE, metadata={"Date": None})
