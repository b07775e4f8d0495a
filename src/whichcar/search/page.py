"""The search as one page, in the look of the other pages; report.html needs no other file. The plots are Optuna's."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.section import shown
from whichcar.data import page
from whichcar.data.explore import charts
from whichcar.files import CONFIG
from whichcar.progress import clock
from whichcar.search.space import SweepSpec
from whichcar.text import shell_command

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PAGE = "report.html"
SHOWN = 10  # best trials
ENOUGH = 4  # complete trials from which on importance and coordinates say anything


def write_page(
    spec: SweepSpec, study: optuna.Study, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]
) -> Path:
    """Write report.html into the sweep's folder and return its path.

    Args:
        trials: all that count.
        ranked: the complete ones, best first.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    sections = [_head(spec, trials, ranked), _ranking(spec, ranked), *_plots(spec, study, ranked), _failures(trials)]
    return page.write_page(spec.folder / PAGE, spec.name, sections, charts.page_head())


def _head(spec: SweepSpec, trials: Sequence[FrozenTrial], ranked: Sequence[FrozenTrial]) -> str:
    counts = [(name, sum(trial.state.name == state for trial in trials)) for state, name in _STATES]
    seconds = sum(float(trial.user_attrs.get("seconds", 0.0)) for trial in trials)
    said = ", ".join(f"{count} {name}" for name, count in counts if count)
    metric = spec.sweep.objective.metric
    best = f"<p>Best: trial {ranked[0].number}, {metric} <b>{ranked[0].value:.4f}</b>." if ranked else "<p>"
    best += f" {said}; {clock(seconds)} in all trials together.</p>"
    command = shell_command(["whichcar", "train", spec.folder / "best" / CONFIG]) if ranked else ""
    return best + (f"<p><code>{page.text(command)}</code></p>" if command else "")


_STATES = (("COMPLETE", "complete"), ("PRUNED", "pruned"), ("FAIL", "failed"), ("RUNNING", "running"))


def _ranking(spec: SweepSpec, ranked: Sequence[FrozenTrial]) -> str:
    if not ranked:
        return ""
    names = _names(ranked)
    titles = ("trial", spec.sweep.objective.metric, *_short(names))
    head = "".join(f"<th class=n>{page.text(title)}</th>" for title in titles)
    rows = "".join(f"<tr>{''.join(_cells(trial, names))}</tr>" for trial in ranked[:SHOWN])
    return f"<h2>Best trials</h2><div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _cells(trial: FrozenTrial, names: Sequence[str]) -> Iterator[str]:
    values = (_value(trial.params[name]) if name in trial.params else "–" for name in names)
    yield from (f"<td class=n>{page.text(text)}</td>" for text in (trial.number, f"{trial.value:.4f}", *values))


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return sorted({name for trial in trials for name in trial.params})


def _short(names: Sequence[str]) -> list[str]:
    """Return the last part of each setting's name, with the one before where that is not enough to tell them apart."""
    ends = [name.rsplit(".", 1)[-1] for name in names]
    return [
        end if ends.count(end) == 1 else ".".join(name.split(".")[-2:]) for name, end in zip(names, ends, strict=True)
    ]


def _value(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _plots(spec: SweepSpec, study: optuna.Study, ranked: Sequence[FrozenTrial]) -> Iterator[str]:
    """Yield Optuna's plots, as far as there are enough complete trials for them."""
    from optuna import visualization

    metric = spec.sweep.objective.metric
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks some plots as experimental
        if ranked:
            history = visualization.plot_optimization_history(study, target_name=metric)
            history.for_each_trace(lambda trace: trace.update(name=trace.name.replace("Best Value", "best so far")))
            history.update_xaxes(title="trial", tickformat="d", **({"dtick": 1} if len(study.trials) < 8 else {}))
            yield _plot("History", history)
        epochs = visualization.plot_intermediate_values(study)
        epochs.update_xaxes(title="epoch", tickformat="d").update_yaxes(title=metric)
        yield _plot("Epochs", epochs)
        if len(ranked) < ENOUGH:
            yield f"<p>Importance, slices and parallel coordinates need {ENOUGH} complete trials.</p>"
            return
        names = _names(ranked)
        short = dict(zip(names, _short(names), strict=True))
        importance = visualization.plot_param_importances(study, target_name=metric)
        importance.update_xaxes(title="share of the variance explained").update_yaxes(title=None, labelalias=short)
        importance.update_traces(textposition="auto", cliponaxis=False)
        yield _plot("Importance", importance, 120 + 30 * len(names))
        slices = visualization.plot_slice(study, target_name=metric)
        slices.for_each_xaxis(lambda axis: axis.update(title=short.get(axis.title.text, axis.title.text)))
        slices.update_xaxes(dtick=1, selector={"type": "log"})  # between the powers of ten there is no room
        slices.for_each_trace(lambda trace: trace.update(marker_colorbar_title="trial"))
        yield _plot("Slices", slices, width=max(360, 220 * len(names)))
        parallel = visualization.plot_parallel_coordinate(study, target_name=metric)
        parallel.layout.xaxis.ticktext = _axis_names(parallel.layout.xaxis.ticktext, names)
        yield _plot("Parallel coordinates", parallel, 420, width=max(360, 130 * (len(names) + 1)))


def _axis_names(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the end of each name instead of its beginning, where Optuna has cut a long one off.

    Args:
        labels: the objective, then the parameters in the order of `names`.
    """
    return [labels[0], *_short(names)] if len(labels) == len(names) + 1 else list(labels)


def _plot(title: str, figure: Any, height: int = 320, width: int = 0) -> str:  # noqa: ANN401
    """Return a plot under its title; one that needs a `width` can be scrolled to it where there is less room."""
    charts.restyle(figure, height)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, margin={"l": 40, "r": 40})
    chart = charts.as_html(figure, title.split()[0].lower())
    return f'<h2>{title}</h2><div class=scroll><div style="min-width:{width}px">{chart}</div></div>'


def _failures(trials: Sequence[FrozenTrial]) -> str:
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    rows = "".join(
        f"<tr><td>{trial.number}</td><td>{page.text(str(trial.user_attrs.get('reason', '')))}</td></tr>"
        for trial in failed
    )
    return f"<h2>Failed</h2><div class=scroll><table>{rows}</table></div>" if rows else ""
