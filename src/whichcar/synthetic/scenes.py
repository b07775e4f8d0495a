"""Busy surroundings for drawn vehicles: sky, hills, houses, trees, road and objects in the way."""

from __future__ import annotations

from random import Random

from PIL import Image, ImageDraw, ImageOps

Colour = tuple[int, int, int]

_SKIES: tuple[tuple[Colour, Colour], ...] = (
    ((86, 142, 208), (206, 226, 240)), ((150, 160, 170), (214, 216, 216)), ((66, 84, 140), (244, 178, 120)),
    ((120, 170, 200), (250, 238, 214)), ((38, 48, 84), (120, 122, 150)),
)  # fmt: skip
_GROUNDS: tuple[tuple[Colour, Colour], ...] = (
    ((120, 120, 122), (84, 84, 88)), ((140, 134, 126), (104, 98, 92)), ((96, 98, 104), (62, 64, 70)),
    ((176, 160, 130), (136, 118, 92)), ((110, 136, 84), (78, 104, 58)),
)  # fmt: skip
_WALLS: tuple[Colour, ...] = (
    (172, 96, 74), (200, 184, 154), (126, 134, 146), (214, 210, 204), (148, 118, 96), (98, 112, 104), (222, 196, 120),
)  # fmt: skip
_LEAVES: tuple[Colour, ...] = ((58, 104, 52), (86, 128, 60), (44, 84, 58), (160, 120, 50), (112, 140, 74))


def draw_scene(size: tuple[int, int], rng: Random) -> Image.Image:
    """Return an RGB image of `size` (width, height) without a vehicle."""
    width, height = size
    horizon = round(height * rng.uniform(0.36, 0.56))
    image = Image.new("RGB", size)
    image.paste(_gradient((width, horizon), *rng.choice(_SKIES)), (0, 0))
    image.paste(_gradient((width, height - horizon), *rng.choice(_GROUNDS)), (0, horizon))
    pen = ImageDraw.Draw(image, "RGBA")
    _clouds(pen, width, horizon, rng)
    _hills(pen, width, horizon, rng)
    for _ in range(rng.randint(3, 6)):
        rng.choice((_house, _house, _tree, _tree, _pole, _billboard))(pen, width, horizon, height, rng)
    _road(pen, width, horizon, height, rng)
    for _ in range(rng.randint(1, 3)):
        rng.choice((_person, _fence, _bush, _cone, _tree))(pen, width, horizon, height, rng)
    return image


def draw_foreground(image: Image.Image, rng: Random) -> None:
    """Put a few small things in front of the vehicle, near the lower edge."""
    width, height = image.size
    pen = ImageDraw.Draw(image, "RGBA")
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        x, base = rng.randrange(width), round(height * rng.uniform(0.97, 1.06))
        rng.choice((_one_cone, _one_bush))(pen, x, base, height * rng.uniform(0.1, 0.18), rng)


def _gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    return ImageOps.colorize(Image.linear_gradient("L").resize(size), black=top, white=bottom)


def _clouds(pen: ImageDraw.ImageDraw, width: int, horizon: int, rng: Random) -> None:
    for _ in range(rng.randint(0, 4)):
        x, y, r = rng.randrange(width), rng.uniform(0.05, 0.6) * horizon, width * rng.uniform(0.04, 0.1)
        for _ in range(4):
            dx = rng.uniform(-1.2, 1.2) * r
            pen.ellipse((x + dx - r, y - r * 0.4, x + dx + r, y + r * 0.4), fill=(255, 255, 255, 46))


def _hills(pen: ImageDraw.ImageDraw, width: int, horizon: int, rng: Random) -> None:
    for shade in (0, 1):
        colour = rng.choice(((108, 128, 140), (96, 122, 96), (134, 124, 116), (84, 98, 120)))
        points = [(0.0, float(horizon))]
        for step in range(9):
            points.append((width * step / 8, horizon - horizon * rng.uniform(0.02, 0.34 - 0.14 * shade)))
        pen.polygon([*points, (float(width), float(horizon))], fill=colour)


def _house(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    w, h = width * rng.uniform(0.12, 0.34), height * rng.uniform(0.16, 0.5)
    x, base, wall = rng.uniform(-0.1, 0.95) * width, horizon + height * rng.uniform(0.0, 0.05), rng.choice(_WALLS)
    pen.rectangle((x, base - h, x + w, base), fill=wall)
    pen.rectangle((x + w * 0.86, base - h, x + w, base), fill=(0, 0, 0, 50))
    if rng.random() < 0.5:
        roof = rng.choice(((110, 56, 46), (70, 70, 78), (92, 80, 66)))
        pen.polygon(((x - w * 0.06, base - h), (x + w / 2, base - h * 1.3), (x + w * 1.06, base - h)), fill=roof)
    columns, rows = rng.randint(2, 5), rng.randint(2, 5)
    pane = rng.choice(((60, 76, 92), (232, 214, 150), (44, 50, 58)))
    for column in range(columns):
        for row in range(rows):
            left, top = x + w * (column + 0.25) / columns, base - h + h * (row + 0.25) / rows
            pen.rectangle((left, top, left + w * 0.5 / columns, top + h * 0.5 / rows), fill=pane)


def _tree(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    x, base = rng.randrange(width), horizon + height * rng.uniform(0.0, 0.1)
    h, leaf = height * rng.uniform(0.2, 0.55), rng.choice(_LEAVES)
    pen.rectangle((x - h * 0.04, base - h * 0.5, x + h * 0.04, base), fill=(86, 66, 50))
    if rng.random() < 0.3:
        pen.polygon(((x - h * 0.25, base - h * 0.2), (x, base - h), (x + h * 0.25, base - h * 0.2)), fill=leaf)
        return
    for _ in range(7):
        dx, dy, r = rng.uniform(-0.22, 0.22) * h, rng.uniform(-0.2, 0.2) * h, h * rng.uniform(0.1, 0.2)
        light = rng.uniform(0.8, 1.2)
        colour = (round(leaf[0] * light), round(leaf[1] * light), round(leaf[2] * light))
        pen.ellipse((x + dx - r, base - h * 0.7 + dy - r, x + dx + r, base - h * 0.7 + dy + r), fill=colour)


def _pole(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    x, base, h = rng.randrange(width), horizon + height * rng.uniform(0.02, 0.12), height * rng.uniform(0.35, 0.6)
    pen.line((x, base, x, base - h), fill=(70, 72, 76), width=3)
    arm = width * rng.choice((-0.06, 0.06))
    pen.line((x, base - h, x + arm, base - h), fill=(70, 72, 76), width=2)
    pen.ellipse((x + arm - 4, base - h - 3, x + arm + 4, base - h + 5), fill=(246, 236, 190))


def _billboard(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    x, base = rng.randrange(width), horizon + height * rng.uniform(0.0, 0.08)
    w, h, lift = width * rng.uniform(0.1, 0.22), height * rng.uniform(0.1, 0.2), height * rng.uniform(0.08, 0.2)
    for leg in (0.2, 0.8):
        pen.line((x + w * leg, base, x + w * leg, base - lift), fill=(80, 80, 84), width=3)
    colour = (rng.randint(60, 240), rng.randint(60, 240), rng.randint(60, 240))
    pen.rectangle((x, base - lift - h, x + w, base - lift), fill=colour, outline=(50, 50, 54))
    for line in range(3):
        y = base - lift - h * (0.78 - 0.25 * line)
        pen.line((x + w * 0.12, y, x + w * rng.uniform(0.5, 0.9), y), fill=(255, 255, 255, 200), width=3)


def _road(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    depth = height - horizon
    pen.rectangle((0, horizon + depth * 0.16, width, horizon + depth * 0.22), fill=(190, 188, 182, 200))
    lane = rng.random()
    if lane < 0.4:
        y, offset = horizon + depth * rng.uniform(0.3, 0.9), rng.uniform(0, 0.2)
        for dash in range(-1, 7):
            x = width * (dash * 0.18 + offset)
            pen.rectangle((x, y, x + width * 0.09, y + depth * 0.03), fill=(238, 234, 214))
    elif lane < 0.7:
        vanish = width * rng.uniform(-0.2, 1.2)
        for bay in range(-2, 9):
            x = width * bay / 6
            pen.line((x, height, x + (vanish - x) * 0.5, horizon + depth * 0.3), fill=(236, 236, 230), width=3)
    for _ in range(rng.randint(6, 22)):
        x, y, r = rng.randrange(width), horizon + depth * rng.uniform(0.25, 1), rng.uniform(1, 7)
        tone = rng.choice((20, 235))
        pen.ellipse((x - 2 * r, y - r * 0.5, x + 2 * r, y + r * 0.5), fill=(tone, tone, tone, 36))


def _person(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    x, base, h = rng.randrange(width), horizon + height * rng.uniform(0.08, 0.2), height * rng.uniform(0.18, 0.28)
    shirt = (rng.randint(40, 230), rng.randint(40, 230), rng.randint(40, 230))
    for leg in (-0.05, 0.05):
        pen.line((x + leg * h, base, x, base - h * 0.45), fill=(46, 48, 62), width=max(2, round(h * 0.08)))
    pen.rounded_rectangle((x - h * 0.11, base - h * 0.82, x + h * 0.11, base - h * 0.42), h * 0.05, fill=shirt)
    pen.ellipse((x - h * 0.08, base - h, x + h * 0.08, base - h * 0.83), fill=(206, 164, 134))


def _fence(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    base, h = horizon + height * 0.1, height * rng.uniform(0.06, 0.12)
    colour = rng.choice(((150, 126, 96), (210, 210, 206)))
    start, stop = sorted((rng.uniform(-0.2, 1.2) * width, rng.uniform(-0.2, 1.2) * width))
    for rail in (0.3, 0.75):
        pen.line((start, base - h * rail, stop, base - h * rail), fill=colour, width=3)
    x = start
    while x < stop:
        pen.line((x, base, x, base - h), fill=colour, width=3)
        x += width * 0.04


def _bush(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    _one_bush(pen, rng.randrange(width), horizon + height * 0.12, height * rng.uniform(0.08, 0.16), rng)


def _cone(pen: ImageDraw.ImageDraw, width: int, horizon: int, height: int, rng: Random) -> None:
    base = horizon + height * rng.uniform(0.15, 0.3)
    _one_cone(pen, rng.randrange(width), base, height * rng.uniform(0.06, 0.1), rng)


def _one_bush(pen: ImageDraw.ImageDraw, x: float, base: float, h: float, rng: Random) -> None:
    leaf = rng.choice(_LEAVES)
    for _ in range(6):
        dx, r = rng.uniform(-0.9, 0.9) * h, h * rng.uniform(0.3, 0.5)
        pen.ellipse((x + dx - r, base - 2 * r, x + dx + r, base), fill=leaf)


def _one_cone(pen: ImageDraw.ImageDraw, x: float, base: float, h: float, rng: Random) -> None:
    orange = (232, rng.randint(80, 120), 36)
    pen.polygon(((x - h * 0.35, base), (x, base - h), (x + h * 0.35, base)), fill=orange)
    pen.polygon(
        ((x - h * 0.21, base - h * 0.4), (x - h * 0.13, base - h * 0.62), (x + h * 0.13, base - h * 0.62),
         (x + h * 0.21, base - h * 0.4)), fill=(244, 244, 240),
    )  # fmt: skip
