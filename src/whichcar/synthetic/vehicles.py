"""Twelve invented vehicles, as solids in metres.

A vehicle's wheels are on y = 0 and it faces along x; z runs from its near side to its far side. A solid is a side
profile extruded along z, so that one list of points defines its side, its front and its roof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Solid:
    """A profile from the lower rear over the roof to the lower front, closed along the bottom."""

    profile: tuple[Point, ...]
    glass: tuple[int, ...] = ()
    """Edges that are glass: edge i runs from point i to point i + 1."""
    windows: tuple[tuple[Point, ...], ...] = ()
    doors: tuple[float, ...] = ()
    paint: str = "body"
    """`body`, `box` (a second, pale colour), `dark` or `wood`."""
    rounding: float = 0.12
    half_width: float = 0.86
    roof_inset: float = 0.14
    """How much narrower each side is at the top than at the shoulder, in metres."""


@dataclass(frozen=True, slots=True)
class Vehicle:
    """One class: its name and its shape. Paint and surroundings vary."""

    name: str
    solids: tuple[Solid, ...]
    wheels: tuple[float, ...]
    radius: float
    spokes: int
    """Spokes of a rim; 0: a plain steel disc with holes."""
    lights: str
    grille: str
    nose: tuple[float, float]
    """Lowest and highest point of the front, where grille and lights sit."""
    rack: tuple[float, float, float] | None = None
    """Roof rails: rear x, front x, height."""

    @property
    def ends(self) -> tuple[float, float]:
        """The x coordinates of its rear and its front."""
        along = [x for solid in self.solids for x, _ in solid.profile]
        return min(along), max(along)


def _cabin(*points: Point, pillars: Sequence[float]) -> tuple[tuple[Point, ...], ...]:
    """Divide the window band between a lower and an upper line into panes at the pillars.

    Args:
        points: lower rear, upper rear, upper front, lower front corner.
        pillars: x of each pillar's middle.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = points
    gap = 0.045

    def at(x: float) -> tuple[Point, Point]:
        low = y0 + (y3 - y0) * (x - x0) / (x3 - x0)
        high = y1 + (y2 - y1) * (x - x1) / (x2 - x1)
        return (x, low), (x, high)

    panes: list[tuple[Point, ...]] = []
    left: list[Point] = [(x0, y0), (x1, y1)]
    for pillar in pillars:
        low, high = at(pillar - gap)
        panes.append((*left, high, low))
        low, high = at(pillar + gap)
        left = [low, high]
    panes.append((*left, (x2, y2), (x3, y3)))
    return tuple(panes)


VEHICLES: tuple[Vehicle, ...] = (
    Vehicle(
        "Alder Meridian Sedan 2012",
        (
            Solid(
                ((0, 0.34), (0, 0.86), (0.14, 0.99), (0.82, 1.02), (1.5, 1.42), (2.6, 1.45), (3.38, 1.0), (4.4, 0.86),
                 (4.65, 0.66), (4.65, 0.3)),
                glass=(3, 5),
                windows=_cabin((1.1, 1.02), (1.62, 1.36), (2.58, 1.38), (3.18, 1.02), pillars=(2.1,)),
                doors=(1.25, 2.1, 3.15),
            ),
        ),
        wheels=(0.85, 3.75), radius=0.34, spokes=5, lights="slit", grille="bars", nose=(0.36, 0.8),
    ),
    Vehicle(
        "Alder Meridian Wagon 2012",
        (
            Solid(
                ((0, 0.34), (0, 0.95), (0.32, 1.5), (2.7, 1.52), (3.45, 1.0), (4.4, 0.86), (4.65, 0.66), (4.65, 0.3)),
                glass=(1, 3),
                windows=_cabin((0.22, 1.02), (0.45, 1.42), (2.66, 1.44), (3.24, 1.02), pillars=(1.2, 2.15)),
                doors=(1.25, 2.15, 3.2),
            ),
        ),
        wheels=(0.85, 3.75), radius=0.34, spokes=10, lights="slit", grille="bars", nose=(0.36, 0.8),
        rack=(0.6, 2.5, 1.6),
    ),
    Vehicle(
        "Alder Pico Hatchback 2014",
        (
            Solid(
                ((0, 0.34), (0, 0.9), (0.45, 1.52), (1.75, 1.56), (2.55, 1.05), (3.25, 0.92), (3.5, 0.7), (3.5, 0.32)),
                glass=(1, 3),
                windows=_cabin((0.35, 1.06), (0.6, 1.42), (1.75, 1.46), (2.36, 1.06), pillars=(1.1,)),
                doors=(1.1, 2.35),
                rounding=0.22,
            ),
        ),
        wheels=(0.6, 2.85), radius=0.32, spokes=4, lights="round", grille="oval", nose=(0.36, 0.84),
    ),
    Vehicle(
        "Boxer C/V Cargo Van 2012",
        (
            Solid(
                ((0, 0.36), (0, 2.25), (3.75, 2.3), (4.55, 1.35), (5.15, 1.12), (5.3, 0.85), (5.3, 0.36)),
                glass=(2,),
                windows=(((3.5, 1.35), (3.5, 1.95), (3.86, 1.95), (4.36, 1.35)),),
                doors=(1.3, 2.55, 3.4, 4.4),
                rounding=0.16, half_width=1.0, roof_inset=0.08,
            ),
        ),
        wheels=(0.95, 4.35), radius=0.37, spokes=0, lights="tall", grille="grid", nose=(0.45, 1.0),
    ),
    Vehicle(
        "Boxer Dray Box Truck 2009",
        (
            Solid(((0, 0.5), (0, 0.72), (5.6, 0.72), (5.6, 0.5)), paint="dark", rounding=0, half_width=0.6),
            Solid(((0, 0.8), (0, 2.85), (3.95, 2.85), (3.95, 0.8)), paint="box", rounding=0.02, half_width=1.15,
                  roof_inset=0),
            Solid(
                ((4.1, 0.42), (4.1, 2.1), (4.3, 2.2), (5.05, 2.2), (5.5, 1.35), (5.7, 1.2), (5.7, 0.42)),
                glass=(3,),
                windows=(((4.5, 1.35), (4.5, 1.95), (4.98, 1.95), (5.32, 1.35)),),
                doors=(4.4, 5.35),
                half_width=1.0, roof_inset=0.06,
            ),
        ),
        wheels=(0.95, 4.95), radius=0.45, spokes=0, lights="square", grille="slats", nose=(0.5, 1.1),
    ),
    Vehicle(
        "Boxer Mule Pickup 2011",
        (
            Solid(((0, 0.5), (0, 1.12), (2.15, 1.12), (2.15, 0.5)), rounding=0.04, half_width=0.95, roof_inset=0,
                  doors=(0.5,)),
            Solid(((0.1, 1.1), (0.1, 1.13), (2.05, 1.13), (2.05, 1.1)), paint="dark", rounding=0, half_width=0.82,
                  roof_inset=0),
            Solid(
                ((2.05, 0.5), (2.05, 1.15), (2.15, 1.8), (3.2, 1.84), (3.85, 1.24), (5.0, 1.14), (5.2, 0.95),
                 (5.2, 0.46)),
                glass=(1, 3),
                windows=_cabin((2.25, 1.24), (2.32, 1.7), (3.16, 1.73), (3.66, 1.24), pillars=(2.75,)),
                doors=(2.72, 3.68),
                half_width=0.95,
            ),
        ),
        wheels=(1.0, 4.25), radius=0.44, spokes=6, lights="square", grille="grid", nose=(0.58, 1.08),
    ),
    Vehicle(
        "Kestrel Comet Convertible 2013",
        (
            Solid(((1.25, 0.8), (1.2, 1.2), (1.45, 1.24), (1.55, 0.8)), paint="dark", rounding=0.08, half_width=0.6),
            Solid(
                ((0, 0.32), (0, 0.78), (0.2, 0.92), (2.75, 0.9), (4.1, 0.76), (4.4, 0.55), (4.4, 0.27)),
                windows=(((0.95, 0.84), (1.0, 0.9), (2.5, 0.89), (2.5, 0.83)),),
                doors=(1.35, 2.6),
                rounding=0.18,
            ),
            Solid(((2.45, 0.88), (2.0, 1.24), (2.06, 1.27), (2.62, 0.88)), glass=(2,), rounding=0, half_width=0.74),
        ),
        wheels=(0.8, 3.55), radius=0.35, spokes=7, lights="twin", grille="oval", nose=(0.3, 0.68),
    ),
    Vehicle(
        "Kestrel Comet Coupe 2013",
        (
            Solid(
                ((0, 0.32), (0, 0.82), (0.15, 0.95), (1.35, 1.26), (2.1, 1.27), (3.0, 0.9), (4.1, 0.74), (4.4, 0.53),
                 (4.4, 0.27)),
                glass=(2, 4),
                windows=(((1.05, 0.93), (1.5, 1.18), (2.08, 1.19), (2.75, 0.91)),),
                doors=(1.55, 2.75),
                rounding=0.2,
            ),
            Solid(((-0.05, 1.02), (-0.08, 1.14), (0.32, 1.16), (0.3, 1.1)), rounding=0, half_width=0.78, roof_inset=0),
        ),
        wheels=(0.8, 3.55), radius=0.36, spokes=3, lights="twin", grille="oval", nose=(0.3, 0.66),
    ),
    Vehicle(
        "Nimbus Bubble Microcar 2010",
        (
            Solid(
                ((0, 0.36), (0.02, 0.9), (0.4, 1.6), (1.35, 1.66), (2.1, 1.05), (2.4, 0.8), (2.4, 0.34)),
                glass=(1, 3),
                windows=(((0.55, 1.0), (0.7, 1.48), (1.3, 1.52), (1.9, 1.0)),),
                doors=(0.55, 1.92),
                rounding=0.34, half_width=0.76,
            ),
        ),
        wheels=(0.45, 1.95), radius=0.28, spokes=0, lights="round", grille="plain", nose=(0.4, 0.82),
    ),
    Vehicle(
        "Nimbus Ridge SUV 2012",
        (
            Solid(((-0.22, 0.75), (-0.22, 1.35), (0.02, 1.35), (0.02, 0.75)), paint="dark", rounding=0.08,
                  half_width=0.34, roof_inset=0),
            Solid(
                ((0, 0.52), (0, 1.15), (0.12, 1.84), (2.75, 1.88), (3.15, 1.3), (4.3, 1.22), (4.45, 1.08), (4.45, 0.5)),
                glass=(1, 3),
                windows=_cabin((0.2, 1.3), (0.28, 1.74), (2.68, 1.77), (2.98, 1.3), pillars=(1.05, 1.95)),
                doors=(1.1, 1.95, 3.0),
                rounding=0.06, half_width=0.95, roof_inset=0.08,
            ),
        ),
        wheels=(0.85, 3.6), radius=0.44, spokes=5, lights="round", grille="slats", nose=(0.62, 1.14),
        rack=(0.4, 2.55, 1.98),
    ),
    Vehicle(
        "Torrent Hauler Flatbed Truck 2008",
        (
            Solid(((0, 0.62), (0, 0.86), (3.75, 0.86), (3.75, 0.62)), paint="wood", rounding=0, half_width=1.1,
                  roof_inset=0),
            Solid(((3.6, 0.86), (3.6, 1.95), (3.72, 1.95), (3.72, 0.86)), paint="dark", rounding=0, half_width=1.05,
                  roof_inset=0),
            Solid(
                ((3.85, 0.45), (3.85, 2.0), (4.85, 2.03), (5.12, 1.42), (6.05, 1.3), (6.2, 1.1), (6.2, 0.45)),
                glass=(2,),
                windows=(((4.05, 1.4), (4.05, 1.88), (4.78, 1.9), (4.98, 1.4)),),
                doors=(3.98, 5.02),
                half_width=0.95, roof_inset=0.08,
            ),
        ),
        wheels=(0.8, 1.75, 5.4), radius=0.44, spokes=0, lights="round", grille="bars", nose=(0.56, 1.2),
    ),
    Vehicle(
        "Torrent Voyage Minivan 2010",
        (
            Solid(
                ((0, 0.36), (0, 1.1), (0.25, 1.74), (2.65, 1.78), (3.85, 1.05), (4.6, 0.88), (4.8, 0.68), (4.8, 0.32)),
                glass=(1, 3),
                windows=_cabin((0.18, 1.1), (0.38, 1.62), (2.6, 1.66), (3.55, 1.1), pillars=(1.2, 2.3)),
                doors=(1.25, 2.35, 3.4),
                rounding=0.18, half_width=0.95,
            ),
        ),
        wheels=(0.9, 3.85), radius=0.35, spokes=8, lights="tall", grille="plain", nose=(0.4, 0.84),
    ),
)  # fmt: skip
