"""The evaluation as one HTML page that opens without a network: its plots are SVG inside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from training.base.checkpoint import write_whole
from training.evaluate.record import TASKS

BLUE, GREY = "#0b5cad", "#8a97a5"
CHANCE = 0.5
PHANTOM_WARNING = "Trained and judged on simulated studies. Nothing here is a claim about patients."


def write_page(path: Path, record: Mapping[str, Any], title: str, warning: str = "") -> None:
    """Write the page of an evaluation record. Raises NoSpace."""
    environment = Environment(
        loader=PackageLoader("training.evaluate"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"figure": _figure, "interval": _interval}
    plots: dict[str, Any] = {name: _plots_of(one) for name, one in record["sets"].items()}
    plots["scaling"] = _scaling_plot(record["scaling"]) if record.get("scaling") else ""
    sets = {name: _complete(one) for name, one in record["sets"].items()}
    shown = {"scaling": None, "prospective": False, **record, "sets": sets}
    text = environment.get_template("page.html").render(
        record=shown, title=title, warning=warning, plots=plots, tasks=TASKS
    )
    write_whole(path, lambda scratch: scratch.write_text(text, "utf-8"))


def _complete(one: Mapping[str, Any]) -> dict[str, Any]:
    """Parts that a set does not have are None, so that the template can ask for them."""
    return dict.fromkeys((*TASKS, "by_contrast", "by_size", "subgroups", "zero_shot", "retrieval")) | dict(one)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(value: Mapping[str, float] | None) -> str:
    return "–" if value is None else f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def _plots_of(one: Mapping[str, Any]) -> dict[str, str]:
    plots = {task: _forest(one[task]["outputs"]) for task in TASKS if one.get(task)}
    rows = [
        {"name": f"{comparison['attribute']}: {group['value']}", "auroc": group["auroc"]}
        for comparison in one.get("subgroups") or ()
        for group in comparison["subgroups"]
    ]
    plots["subgroups"] = _forest(rows)
    plots["difficulty"] = _difficulty_plot(one) if one.get("by_contrast") else ""
    return plots


def _forest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each row's AUROC as a dot with its interval, best first within the given order of equals."""
    known = [row for row in rows if row["auroc"]]
    if not known:
        return ""

    def draw(axes: Axes) -> None:
        known.sort(key=lambda row: row["auroc"]["value"])
        for place, row in enumerate(known):
            axes.plot([row["auroc"]["low"], row["auroc"]["high"]], [place, place], color=GREY, linewidth=2)
            axes.plot(row["auroc"]["value"], place, "o", color=BLUE, markersize=5)
        axes.set_yticks(range(len(known)), [row["name"] for row in known])
        axes.axvline(CHANCE, color=GREY, linestyle=":", linewidth=1)
        axes.set_xlim(min(0.4, min(row["auroc"]["low"] for row in known) - 0.02), 1.01)
        axes.set_xlabel("AUROC, 95 % interval; dotted: chance")

    return _svg(draw, 0.24 * len(known) + 0.9)


def _difficulty_plot(one: Mapping[str, Any]) -> str:
    bins = [("contrast", bin) for bin in one["by_contrast"]] + [("size", bin) for bin in one["by_size"]]
    known = [(kind, bin) for kind, bin in bins if bin["auroc"] is not None]

    def draw(axes: Axes) -> None:
        labels = [
            f"{kind} {bin['low']:g}–{bin['high']:g}" if bin["high"] is not None else f"{kind} {bin['low']:g}+"
            for kind, bin in known
        ]
        colours = [BLUE if kind == "contrast" else GREY for kind, _ in known]
        axes.bar(range(len(known)), [bin["auroc"] for _, bin in known], color=colours, width=0.6)
        axes.set_xticks(range(len(known)), labels, rotation=30, ha="right")
        axes.set_ylim(0.4, 1.0)
        axes.axhline(CHANCE, color="black", linestyle=":", linewidth=1)
        axes.set_ylabel("mean AUROC")

    return _svg(draw, 3.2) if known else ""


def _scaling_plot(points: Sequence[Mapping[str, Any]]) -> str:
    known = [point for point in points if point["mean_auroc"] is not None]

    def draw(axes: Axes) -> None:
        axes.plot([one["studies"] for one in known], [one["mean_auroc"] for one in known], "o-", color=BLUE)
        axes.set_xscale("log", base=2)
        axes.set_xticks([one["studies"] for one in known], [str(one["studies"]) for one in known])
        axes.set_xlabel("training studies")
        axes.set_ylabel("mean AUROC")

    return _svg(draw, 2.8) if known else ""


def _svg(draw: Callable[[Axes], None], height: float) -> str:
    """One plot as an <svg> element; text stays text."""
    with rc_context({"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, height), layout="constrained")
        draw(figure.subplots())
        out = io.StringIO()
        FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
            out, metadata={"Date": None, "Creator": None}
        )
    text = out.getvalue()
    return text[text.index("<svg") :]
