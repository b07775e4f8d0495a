"""The search as one page: report.html needs no other file and no network. The plots are Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config_section import shown
from whichcar.config_space import Plan
from whichcar.errors import MissingExtraError
from whichcar.files import write_text
from whichcar.progress import clock
from whichcar.text import shell_command

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PAGE = "report.html"
ENOUGH = 4  # complete trials from which on importance and coordinates say anything
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 72rem; padding: 1rem; color: #222; }
table { border-collapse: collapse; font-size: 14px; } td, th { padding: .2rem .6rem; text-align: right; }
td:last-child, th:last-child { text-align: left; } tr:nth-child(even) { background: #f4f4f4; }
.scroll { overflow-x: auto; } code { background: #f4f4f4; padding: .1rem .3rem; }
"""


def write_page(plan: Plan, study: optuna.Study, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> Path:
    """Write report.html into the sweep's folder and return its path.

    Args:
        trials: all that count.
        ranked: the complete ones, best first.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtraError("plotly", "sweep") from error

    sections = [_head(plan, trials, ranked), _ranking(plan, ranked), *_plots(plan, study, ranked), _failures(trials)]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(plan.name)} – whichcar sweep</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body>{chr(10).join(filter(None, sections))}</body></html>\n"
    )
    path = plan.folder / PAGE
    write_text(path, page)
    return path


def _head(plan: Plan, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> str:
    counts = [(name, sum(trial.state.name == state for trial in trials)) for state, name in _STATES]
    seconds = sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in trials)
    said = ", ".join(f"{count} {name}" for name, count in counts if count)
    metric = plan.sweep.objective.metric
    best = f"<p>Best: trial {ranked[0].number}, {metric} <b>{ranked[0].value:.4f}</b>." if ranked else "<p>"
    best += f" {said}; {clock(seconds)} in all trials together.</p>"
    command = shell_command(["whichcar", "train", plan.folder / "best" / "config.yml"]) if ranked else ""
    return f"<h1>{escape(plan.name)}</h1>{best}" + (f"<p><code>{escape(command)}</code></p>" if command else "")


_STATES = (("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed"), ("RUNNING", "running"))


def _ranking(plan: Plan, ranked: Sequence[FrozenTrial]) -> str:
    if not ranked:
        return ""
    rows = "".join(
        f"<tr><td>{trial.number}</td><td>{trial.value:.4f}</td><td>{escape(_values(trial.params))}</td></tr>"
        for trial in ranked[:10]
    )
    head = f"<tr><th>trial</th><th>{plan.sweep.objective.metric}</th><th>values</th></tr>"
    return f"<h2>Best trials</h2><div class=scroll><table>{head}{rows}</table></div>"


def _values(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _plots(plan: Plan, study: optuna.Study, ranked: Sequence[FrozenTrial]) -> Iterator[str]:
    """Yield Optuna's plots, as far as there are enough complete trials for them."""
    from optuna import visualization

    metric = plan.sweep.objective.metric
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks some plots as experimental
        if ranked:
            yield _plot("History", visualization.plot_optimization_history(study, target_name=metric))
        yield _plot("Epochs", visualization.plot_intermediate_values(study))
        if len(ranked) < ENOUGH:
            yield f"<p>Importance, slices and parallel coordinates need {ENOUGH} complete trials.</p>"
            return
        yield _plot("Importance", visualization.plot_param_importances(study, target_name=metric))
        yield _plot("Slices", visualization.plot_slice(study, target_name=metric))
        parallel = visualization.plot_parallel_coordinate(study, target_name=metric)
        names = sorted({name for trial in ranked for name in trial.params})
        parallel.layout.xaxis.ticktext = _axis_names(parallel.layout.xaxis.ticktext, names)
        yield _plot("Parallel coordinates", parallel)


def _axis_names(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the end of each name in the place of its beginning, where Optuna has cut a long one off.

    Args:
        labels: the objective, then the parameters in the order of `names`.
    """
    ends = [name.rsplit(".", 1)[-1] for name in names]
    short = [
        end if ends.count(end) == 1 else ".".join(name.split(".")[-2:]) for name, end in zip(names, ends, strict=True)
    ]
    return [labels[0], *short] if len(labels) == len(names) + 1 else list(labels)


def _plot(title: str, figure: Any) -> str:  # noqa: ANN401
    figure.update_layout(title=None)
    return f"<h2>{title}</h2><div class=scroll>{figure.to_html(full_html=False, include_plotlyjs=False)}</div>"


def _failures(trials: Sequence[FrozenTrial]) -> str:
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    rows = "".join(
        f"<tr><td>{trial.number}</td><td>{escape(str(trial.user_attrs.get('reason', '')))}</td></tr>"
        for trial in failed
    )
    return f"<h2>Failed</h2><div class=scroll><table>{rows}</table></div>" if rows else ""
