"""The search as a self-contained page, report.html. The plots are Optuna's."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.config.section import shown
from whichcar.pages import render
from whichcar.pages.charts import BLUE, HEIGHT, ORANGE, THEME, plotly_script
from whichcar.progress import clock
from whichcar.search.space import SweepSpec
from whichcar.search.trial import OUTCOMES, seconds_of
from whichcar.text import shell_command

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PAGE = "report.html"
SHOWN = 10  # best trials
_SCALE = [[0, ORANGE], [1, BLUE]]  # visible on white and on black
ENOUGH = 4  # complete trials needed for importance, slices and coordinates to mean anything


def write_page(
    spec: SweepSpec,
    study: optuna.Study,
    trials: Sequence[FrozenTrial],
    ranked: Sequence[FrozenTrial],
    config: Path | None,
) -> Path:
    """Write report.html into the sweep's folder and return its path.

    Args:
        trials: all trials that count.
        ranked: the complete trials, best first.
        config: settings of the best trial, ready for training; None if no trial is complete.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    outcomes = Counter(OUTCOMES[trial.state.name] for trial in trials)
    names, metric = _names(ranked), spec.sweep.objective.metric
    return render.write_page(
        spec.folder / PAGE,
        "search",
        spec.name,
        plotly=plotly_script(),
        metric=metric,
        ranked=ranked,
        outcomes=", ".join(f"{outcomes[name]} {name}" for name in dict.fromkeys(OUTCOMES.values()) if outcomes[name]),
        clock=clock(sum(map(seconds_of, trials))),
        train_command=config and shell_command(["whichcar", "train", config]),
        columns=("trial", metric, *_short(names)),
        rows=[_row(trial, names) for trial in ranked[:SHOWN]],
        plots=_plots(metric, study, ranked),
        enough=ENOUGH,
        failed=[trial for trial in trials if trial.state.name == "FAIL"],
    )


def _row(trial: FrozenTrial, names: Sequence[str]) -> list[str]:
    values = (_value(trial.params[name]) if name in trial.params else "–" for name in names)
    return [str(trial.number), f"{trial.value:.4f}", *values]


def _names(trials: Sequence[FrozenTrial]) -> list[str]:
    return sorted({name for trial in trials for name in trial.params})


def _short(names: Sequence[str]) -> list[str]:
    """Return the last part of each setting's name, preceded by the part before it if that is ambiguous."""
    ends = [name.rsplit(".", 1)[-1] for name in names]
    return [
        end if ends.count(end) == 1 else ".".join(name.split(".")[-2:]) for name, end in zip(names, ends, strict=True)
    ]


def _value(value: Any) -> str:  # noqa: ANN401
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _plots(metric: str, study: optuna.Study, ranked: Sequence[FrozenTrial]) -> Iterator[tuple[str, Any, int]]:
    """Yield title, figure and minimum width of each plot for which there are enough complete trials."""
    from optuna import visualization

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna marks some plots as experimental
        whole = {"tickformat": "d", **({"dtick": 1} if len(study.trials) < 8 else {})}
        if ranked:
            history = visualization.plot_optimization_history(study, target_name=metric)
            history.for_each_trace(lambda trace: trace.update(name=trace.name.replace("Best Value", "best so far")))
            yield "History", _themed(history.update_xaxes(title="trial", **whole)), 0
        epochs = visualization.plot_intermediate_values(study)
        last = max((max(trial.intermediate_values, default=0) for trial in study.trials), default=0)
        epochs.update_xaxes(title="epoch", tickformat="d", **({"dtick": 1} if last < 10 else {}))
        yield "Epochs", _themed(epochs.update_yaxes(title=metric)), 0
        if len(ranked) < ENOUGH:
            return
        names = _names(ranked)
        short = dict(zip(names, _short(names), strict=True))
        importance = visualization.plot_param_importances(study, target_name=metric)
        importance.update_xaxes(title="share of the variance explained").update_yaxes(title=None, labelalias=short)
        importance.update_traces(textposition="auto", cliponaxis=False, marker_color=BLUE)
        yield "Importance", _themed(importance, 120 + 30 * len(names)), 0
        slices = visualization.plot_slice(study, target_name=metric)
        slices.for_each_xaxis(lambda axis: axis.update(title=short.get(axis.title.text, axis.title.text)))
        slices.update_xaxes(dtick=1, selector={"type": "log"})  # there is no room between the powers of ten
        slices.for_each_trace(
            lambda trace: trace.update(marker_colorbar={"title": "trial", **whole}, marker_colorscale=_SCALE)
        )
        yield "Slices", _themed(slices), max(360, 220 * len(names))
        parallel = visualization.plot_parallel_coordinate(study, target_name=metric)
        parallel.layout.xaxis.ticktext = _axis_names(parallel.layout.xaxis.ticktext, names)
        _recolour(parallel)
        yield "Parallel coordinates", _themed(parallel, 420), max(360, 130 * (len(names) + 1))


def _recolour(parallel: Any) -> None:  # noqa: ANN401
    """Colour the lines of a parallel-coordinates plot so that they show on white and on black, the best in blue."""
    from plotly.colors import sample_colorscale

    *lines, colorbar = parallel.data
    colorbar.marker.colorscale = _SCALE
    for line in lines:  # the first coordinate is the objective, scaled to 0..1
        place = 1 - line.y[0] if colorbar.marker.reversescale else line.y[0]
        line.update(line_color=sample_colorscale(_SCALE, place)[0], opacity=0.8)


def _axis_names(labels: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the labels with the end of each name instead of its beginning, if Optuna truncated a long one.

    Args:
        labels: the objective, then the parameters in the order of `names`.
    """
    return [labels[0], *_short(names)] if len(labels) == len(names) + 1 else list(labels)


def _themed(figure: Any, height: int = HEIGHT) -> Any:  # noqa: ANN401
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    margin = {"l": 40, "r": 40, "t": 20, "b": 10}
    return figure.update_layout(
        template=THEME, plot_bgcolor=None, title=None, width=None, height=height, legend=legend, legend_title=None,
        margin=margin,
    )  # fmt: skip
