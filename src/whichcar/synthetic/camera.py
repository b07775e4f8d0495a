"""Draw a vehicle into an image: a simple camera, and a brush that paints from the farthest part to the nearest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from random import Random

from PIL import Image, ImageDraw

from whichcar.synthetic.vehicles import Point, Solid, Vehicle

Colour = tuple[int, int, int]
GLASS: Colour = (52, 68, 84)
DARK: Colour = (30, 31, 34)

_PAINTS: tuple[Colour, ...] = (
    (176, 30, 34), (26, 72, 142), (222, 224, 226), (42, 44, 48), (150, 156, 162), (28, 96, 62), (214, 160, 32),
    (104, 46, 92), (196, 92, 34), (70, 130, 150), (120, 96, 74), (236, 230, 208),
)  # fmt: skip


def shade(colour: Colour, factor: float) -> Colour:
    """Darken (below 1) or lighten (above 1) a colour."""
    red, green, blue = (min(255, max(0, round(part * factor))) for part in colour)
    return red, green, blue


def any_paint(rng: Random) -> Colour:
    """Pick a paint and shift it a little."""
    red, green, blue = (min(255, max(0, part + rng.randint(-14, 14))) for part in rng.choice(_PAINTS))
    return red, green, blue


class Camera:
    """Projection of the vehicle: (x, y, z) in metres to (column, row) in pixels."""

    def __init__(self, vehicle: Vehicle, size: tuple[int, int], rng: Random) -> None:
        """Choose a random pose and position inside `size`: (width, height)."""
        self._yaw, self._pitch = rng.uniform(0.16, 0.56), rng.uniform(0.06, 0.2)
        self._roll, self._distance = rng.uniform(-0.05, 0.05), rng.uniform(8.0, 14.0)
        self._middle = sum(vehicle.ends) / 2
        self._mirror, self._scale, self._shift = 1.0, 1.0, (0.0, 0.0)
        corners = [self(x, y, z) for s in vehicle.solids for x, y in s.profile for z in (-s.half_width, s.half_width)]
        corners += [self(x, 0, z) for x in (vehicle.wheels[0], vehicle.wheels[-1]) for z in (-0.9, 0.9)]
        left, right = min(c for c, _ in corners), max(c for c, _ in corners)
        top, bottom = min(r for _, r in corners), max(r for _, r in corners)
        width, height = size
        self._scale = rng.uniform(0.74, 0.96) * min(width / (right - left), 0.86 * height / (bottom - top))
        free = width - self._scale * (right - left)
        self._mirror = rng.choice((-1.0, 1.0))
        self._shift = (
            width / 2 + rng.uniform(-0.42, 0.42) * free - self._mirror * self._scale * (left + right) / 2,
            rng.uniform(0.88, 0.96) * height - self._scale * bottom,
        )

    def __call__(self, x: float, y: float, z: float) -> Point:
        """Project one point."""
        x -= self._middle
        depth = z * math.cos(self._yaw) - x * math.sin(self._yaw)
        side = x * math.cos(self._yaw) + z * math.sin(self._yaw)
        up = y * math.cos(self._pitch) + depth * math.sin(self._pitch)
        near = self._distance / (self._distance + depth * math.cos(self._pitch) - y * math.sin(self._pitch))
        side, up = side * near, up * near
        column = side * math.cos(self._roll) - up * math.sin(self._roll)
        row = -(side * math.sin(self._roll) + up * math.cos(self._roll))
        return self._mirror * self._scale * column + self._shift[0], self._scale * row + self._shift[1]

    @property
    def orientation(self) -> float:
        """1, or -1 when the vehicle is mirrored."""
        return self._mirror


def draw_vehicle(image: Image.Image, vehicle: Vehicle, rng: Random) -> None:
    """Draw `vehicle` in a random pose and paint over an RGB image."""
    camera = Camera(vehicle, image.size, rng)
    body = any_paint(rng)
    paints = {"body": body, "box": rng.choice(((232, 232, 228), (206, 212, 216), (220, 206, 176))),
              "dark": DARK, "wood": (134, 98, 62)}  # fmt: skip
    _Brush(image, camera, vehicle).vehicle(paints)


def _rounded(solid: Solid) -> list[tuple[Point, bool]]:
    """Return the profile with rounded corners; each point comes with whether the edge after it is glass."""
    points, result = solid.profile, list[tuple[Point, bool]]()
    for index, (x, y) in enumerate(points):
        glass = index in solid.glass
        if index in (0, len(points) - 1) or not solid.rounding:
            result.append(((x, y), glass))
            continue
        ends: list[Point] = []
        for other in (points[index - 1], points[index + 1]):
            share = min(0.4, solid.rounding / math.dist((x, y), other))
            ends.append((x + (other[0] - x) * share, y + (other[1] - y) * share))
        (x0, y0), (x1, y1) = ends
        middle = ((x0 + 2 * x + x1) / 4, (y0 + 2 * y + y1) / 4)
        result += [((x0, y0), False), (middle, False), ((x1, y1), glass)]
    return result


class _Brush:
    """Draws the parts of one vehicle, from the farthest to the nearest."""

    def __init__(self, image: Image.Image, camera: Camera, vehicle: Vehicle) -> None:
        self._pen = ImageDraw.Draw(image, "RGBA")
        self._camera = camera
        self._vehicle = vehicle

    def vehicle(self, paints: dict[str, Colour]) -> None:
        """Draw everything."""
        self._shadow()
        for x in self._vehicle.wheels:
            self._wheel(x, near=False)
        for solid in self._vehicle.solids:
            self._solid(solid, paints[solid.paint])
        self._front(paints["body"])
        self._rails()
        for x in self._vehicle.wheels:
            self._wheel(x, near=True)

    def _fill(self, points: Iterable[tuple[float, float, float]], colour: tuple[int, ...]) -> None:
        self._pen.polygon([self._camera(*point) for point in points], fill=colour)

    def _line(self, points: Iterable[tuple[float, float, float]], colour: tuple[int, ...], width: int = 1) -> None:
        self._pen.line([self._camera(*point) for point in points], fill=colour, width=width)

    def _shadow(self) -> None:
        rear, front = self._vehicle.ends
        for grow, alpha in ((0.35, 40), (0.2, 60), (0.05, 110)):
            low, high, half = rear - grow, front + grow, 0.9 + grow
            self._fill(((low, 0, -half), (high, 0, -half), (high, 0, half), (low, 0, half)), (10, 10, 14, alpha))

    def _solid(self, solid: Solid, colour: Colour) -> None:
        outline = _rounded(solid)
        top, shoulder = max(y for (_, y), _ in outline), min(y for (_, y), _ in outline) + 0.6

        def half(y: float) -> float:
            return solid.half_width - solid.roof_inset * max(0.0, y - shoulder) / max(0.1, top - shoulder)

        for ((x0, y0), glass), ((x1, y1), _) in itertools.pairwise(outline):
            face = ((x0, y0, -half(y0)), (x0, y0, half(y0)), (x1, y1, half(y1)), (x1, y1, -half(y1)))
            if _turn([self._camera(*corner) for corner in face]) * self._camera.orientation > 0:
                upwards = (x1 - x0) / math.dist((x0, y0), (x1, y1))
                self._fill(face, shade(GLASS, 1.5) if glass else shade(colour, 0.78 + 0.5 * max(0.0, upwards)))
        self._side(solid, [point for point, _ in outline], half, colour)

    def _side(self, solid: Solid, outline: Sequence[Point], half: Callable[[float], float], colour: Colour) -> None:
        """Fill the near side in bands, darker towards the ground, then draw windows and door lines."""
        low, high = min(y for _, y in outline), max(y for _, y in outline)
        self._fill(((x, y, -half(y)) for x, y in outline), shade(colour, 0.95))
        for share, alpha in ((0.5, 30), (0.3, 40), (0.14, 60)):
            band = [(x, min(y, low + share * (high - low))) for x, y in outline]
            self._fill(((x, y, -half(y)) for x, y in band), (0, 0, 0, alpha))
        for pane in solid.windows:
            self._fill(((x, y, -half(y) - 0.005) for x, y in pane), GLASS)
            shine = [(x + 0.25 * (pane[-1][0] - x), y) for x, y in pane[:2]]
            self._fill(((x, y, -half(y) - 0.01) for x, y in (*pane[:2], *reversed(shine))), (150, 176, 196, 120))
        for x in solid.doors:
            roof = max((y for pane in solid.windows for _, y in pane), default=high)
            sill = min((y for pane in solid.windows for _, y in pane), default=high)
            self._line(((x, y, -half(y) - 0.01) for y in (low + 0.08, min(sill, roof))), (0, 0, 0, 120))
        if solid.windows:
            self._handles(solid, half, low)

    def _handles(self, solid: Solid, half: Callable[[float], float], low: float) -> None:
        sill = min(y for pane in solid.windows for _, y in pane)
        y = sill - 0.12
        self._line(((solid.doors[0], y, -half(y) - 0.01), (solid.doors[-1], y, -half(y) - 0.01)), (255, 255, 255, 70))
        for x in solid.doors[:-1]:
            grip = ((x + 0.1, y - 0.04, -half(y) - 0.01), (x + 0.28, y - 0.04, -half(y) - 0.01))
            self._line(grip, (20, 20, 20, 200), 2)

    def _rails(self) -> None:
        if self._vehicle.rack is None:
            return
        rear, front, y = self._vehicle.rack
        for z in (0.6, -0.6):
            self._line(((rear, y - 0.1, z), (rear + 0.1, y, z), (front - 0.1, y, z), (front, y - 0.1, z)), DARK, 3)

    def _front(self, body: Colour) -> None:
        """Draw bumper, grille and lights on the foremost face."""
        solid = max(self._vehicle.solids, key=lambda s: max(x for x, _ in s.profile))
        x, half = max(x for x, _ in solid.profile) + 0.005, solid.half_width
        low, high = self._vehicle.nose
        self._box(x, (low - 0.06, low + 0.08), (-half, half), shade(body, 0.45))
        self._box(x, (low, low + 0.1), (-0.24, 0.24), (236, 236, 226))
        self._grille(x, low + 0.13, high, 0.46 * half / 0.86)
        self._lights(x, low + 0.13, high, half)

    def _box(self, x: float, y: Point, z: Point, colour: tuple[int, ...]) -> None:
        self._fill(((x, y[0], z[0]), (x, y[1], z[0]), (x, y[1], z[1]), (x, y[0], z[1])), colour)

    def _grille(self, x: float, low: float, high: float, half: float) -> None:
        chrome = (206, 210, 214)
        kind = self._vehicle.grille
        if kind == "plain":
            self._box(x, (high - 0.07, high), (-half, half), DARK)
            return
        if kind == "oval":
            self._round(x, ((low + high) / 2, 0.0), ((high - low) / 2, half * 0.8), DARK)
            return
        self._box(x, (low, high), (-half, half), DARK)
        steps = 4
        if kind in ("bars", "grid"):
            for step in range(steps):
                y = low + (step + 0.5) * (high - low) / steps
                self._line(((x, y, -half), (x, y, half)), chrome, 2)
        if kind in ("slats", "grid"):
            for step in range(2 * steps):
                z = -half + (step + 0.5) * half / steps
                self._line(((x, low, z), (x, high, z)), chrome, 2)

    def _round(self, x: float, middle: Point, radii: Point, colour: tuple[int, ...]) -> None:
        turns = [index * math.tau / 20 for index in range(20)]
        self._fill(((x, middle[0] + radii[0] * math.sin(t), middle[1] + radii[1] * math.cos(t)) for t in turns), colour)

    def _lights(self, x: float, low: float, high: float, half: float) -> None:
        glow, rim = (250, 246, 214), (90, 94, 98)
        y, r = (low + high) / 2, (high - low) / 2
        for side in (1, -1):
            z = side * (half - 0.2)
            match self._vehicle.lights:
                case "round":
                    self._round(x, (y, z), (r + 0.03, r + 0.03), rim)
                    self._round(x, (y, z), (r - 0.02, r - 0.02), glow)
                case "twin":
                    for inner in (0.06, -0.14):
                        self._round(x, (high - 0.08, z + side * inner), (0.08, 0.09), glow)
                case "slit":
                    self._box(x, (high - 0.1, high), (z - 0.18, z + 0.18), glow)
                case "tall":
                    self._box(x, (low, high + 0.04), (z - 0.1, z + 0.12), glow)
                case _:
                    self._box(x, (y - r, y + r), (z - 0.18, z + 0.18), rim)
                    self._box(x, (y - r + 0.05, y + r - 0.05), (z - 0.14, z + 0.14), glow)

    def _wheel(self, x: float, near: bool) -> None:
        r, solid = self._vehicle.radius, self._vehicle.solids[-1]
        z = -solid.half_width - 0.01 if near else solid.half_width - 0.1
        if near:
            self._disc(x, z, 1.16 * r, (16, 16, 18))
        self._disc(x, z + 0.16, r, (22, 22, 24))
        self._disc(x, z - 0.01, r, (34, 34, 37))
        if not near:
            return
        self._disc(x, z - 0.02, 0.68 * r, (188, 192, 196) if self._vehicle.spokes else (120, 122, 124))
        if self._vehicle.spokes == 0:
            for index in range(6):
                turn = index * math.tau / 6
                self._disc(x + 0.45 * r * math.cos(turn), z - 0.03, 0.1 * r, DARK, r + 0.45 * r * math.sin(turn))
        for index in range(self._vehicle.spokes):
            self._gap(x, z - 0.03, (index + 0.5) * math.tau / self._vehicle.spokes)
        self._disc(x, z - 0.04, 0.14 * r, (90, 92, 96))

    def _gap(self, x: float, z: float, turn: float) -> None:
        """Darken the opening between two spokes."""
        r, half = self._vehicle.radius, 0.34 * math.tau / self._vehicle.spokes
        corners = ((0.2 * r, turn), (0.6 * r, turn - half), (0.62 * r, turn), (0.6 * r, turn + half))
        self._fill(((x + far * math.cos(t), r + far * math.sin(t), z) for far, t in corners), (40, 41, 44))

    def _disc(self, x: float, z: float, radius: float, colour: tuple[int, ...], y: float | None = None) -> None:
        y = self._vehicle.radius if y is None else y
        turns = [index * math.tau / 24 for index in range(24)]
        self._fill(((x + radius * math.cos(t), y + radius * math.sin(t), z) for t in turns), colour)


def _turn(points: Sequence[Point]) -> float:
    """Return twice the signed area of a polygon in pixels; its sign tells which side is visible."""
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairs)
