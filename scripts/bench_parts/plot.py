"""The figures as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench_parts.ratios import DIRECT

_PANELS: Final = (
    ("added_p50_ms", min, "latency added to a lone call, p50\nms, less is better", "{:.2f}"),
    ("rps", max, "calls a second, 64 conversations\nmore is better", "{:.0f}"),
    ("cpu_ms", max, "CPU time, 64 conversations\nms a call, less is better", "{:.2f}"),
)
_COLOURS: Final = {"modern": "#3b6ea5", "handshake": "#a9c4de"}
_TRANSPORTS: Final = {"stdio": "stdio", "http": "HTTP"}
_VERSIONS: Final = {"modern": "MCP 2026-07-28", "handshake": "MCP 2025-11-25"}


def draw(table: Sequence[Mapping[str, Any]], title: str, path: Path) -> None:
    """A row of panels for each transport, a bar for each variant in each era."""
    import matplotlib as mpl  # noqa: PLC0415 - slow, and only here

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    transports = [*dict.fromkeys(row["transport"] for row in table)]
    eras = [*dict.fromkeys(row["era"] for row in table)]
    most = max(len({row["variant"] for row in table if row["transport"] == one}) for one in transports)
    figure, axes = plt.subplots(
        len(transports), 3, figsize=(14, 1.6 + len(transports) * (1.0 + 0.55 * most)), squeeze=False
    )
    for across, transport in zip(axes, transports, strict=True):
        for axis, (key, which, name, form) in zip(across, _PANELS, strict=True):
            own = [row for row in table if row["transport"] == transport and row[key] is not None]
            variants = [*dict.fromkeys(row["variant"] for row in own if row["variant"] != DIRECT)]
            for offset, era in enumerate(eras):
                rows = [row for row in own if row["era"] == era and row["variant"] in variants]
                if not rows:
                    continue
                at = which(row["conversations"] for row in rows)
                rows = [row for row in rows if row["conversations"] == at]
                places = [
                    variants.index(row["variant"]) + (offset - (len(eras) - 1) / 2) * 0.38 for row in rows
                ]
                bars = axis.barh(
                    places, [row[key] for row in rows], 0.36, color=_COLOURS[era], label=_VERSIONS[era]
                )
                axis.bar_label(bars, [form.format(row[key]) for row in rows], padding=3, fontsize=8)
            axis.set_yticks(range(len(variants)), variants)
            axis.invert_yaxis()
            axis.margins(x=0.18)
            axis.set_title(f"{_TRANSPORTS[transport]}: {name}", fontsize=10)
            axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=9)
    figure.legend(*axes[0][0].get_legend_handles_labels(), fontsize=9, loc="lower center", ncols=len(eras))
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
