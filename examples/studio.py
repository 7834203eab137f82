"""A small studio: panels of cloth, put together to garments, lit, and photographed on a floor or a wall.

A garment is built from panels: closed outlines filled with a fabric. The panels carry a height field (wrinkles, ribs,
seams, stitching), the height field is lit from the upper left, the garment casts a soft shadow on a drawn ground, and
a camera with a slight tilt, vignette and sensor noise takes the picture. Nothing here comes from a photo.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Field: TypeAlias = npt.NDArray[np.float32]
"""A value per pixel, ``[ROWS, COLUMNS]``, or a colour per pixel, ``[ROWS, COLUMNS, 3]``, each channel 0…1."""
Points: TypeAlias = npt.NDArray[np.float64]
"""``[N, 2]`` points (x, y): x to the right, y down, the picture's middle at (0, 0), one unit a pixel of the picture."""
Point: TypeAlias = tuple[float, float]
Colour: TypeAlias = tuple[float, float, float]
Rng: TypeAlias = np.random.Generator
Window: TypeAlias = tuple[slice, slice]

WIDTH, HEIGHT = 480, 640
MARGIN = 40  # drawn around the picture, for the camera's tilt to look at
SCALE = 2  # rendered at twice the picture's size, then scaled down
COLUMNS, ROWS = (WIDTH + 2 * MARGIN) * SCALE, (HEIGHT + 2 * MARGIN) * SCALE
Y, X = (np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32) - np.array([[[ROWS]], [[COLUMNS]]], np.float32) / 2) / SCALE
LIGHT = np.array([-0.48, -0.58, 0.66])
"""Direction to the light: from the upper left and the viewer's side."""


# --- Fields ---------------------------------------------------------------------------------------------------------


def colour(code: str) -> Colour:
    """Return a colour written as ``rrggbb``."""
    red, green, blue = (int(code[i : i + 2], 16) / 255 for i in (0, 2, 4))
    return red, green, blue


def flat(base: Colour) -> Field:
    """Return one colour, to be broadcast to any field."""
    return np.array(base, np.float32).reshape(1, 1, 3)


def as_field(values: npt.ArrayLike) -> Field:
    """Return the values in single precision, which is plenty for a picture."""
    return np.asarray(values, np.float32)


def mix(below: Field, above: Field, share: Field) -> Field:
    """Lay ``above`` over ``below`` where ``share`` is 1; fields of colours are mixed channel by channel."""
    if below.ndim > share.ndim:
        share = share[..., None]
    return below + (above - below) * share


def smoothed(
    field: Field, along: float, across: float | None = None, angle: float = 0.0, scale: float = SCALE
) -> Field:
    """Convolve with a Gaussian of deviation ``along`` in the direction ``angle`` (degrees) and ``across`` square to it.

    The convolution goes through the Fourier transform, so opposite sides meet; margins hide that.
    """
    across = along if across is None else across
    turn = np.deg2rad(angle)
    fy = np.fft.fftfreq(field.shape[0], 1 / scale)[:, None]
    fx = np.fft.rfftfreq(field.shape[1], 1 / scale)[None, :]
    u, v = fx * np.cos(turn) + fy * np.sin(turn), fy * np.cos(turn) - fx * np.sin(turn)
    response = np.exp(-2 * np.pi**2 * ((u * along) ** 2 + (v * across) ** 2)).astype(np.float32)
    return np.fft.irfft2(np.fft.rfft2(field) * response, s=field.shape).astype(np.float32)


def noise(rng: Rng, like: Field, along: float, across: float | None = None, angle: float = 0.0) -> Field:
    """Return noise of mean 0 and deviation 1, shaped as ``like``, whose blobs are ``along`` × ``across`` units."""
    rows, columns = like.shape[:2]
    finest = min(along, along if across is None else across)
    coarse = 8 if finest >= 12 else 4 if finest >= 6 else 2 if finest >= 3 else 1  # smooth noise needs few samples
    white = rng.standard_normal((-(-rows // coarse), -(-columns // coarse)), np.float32)
    field = smoothed(white, along, across, angle, SCALE / coarse)
    field = (field - field.mean()) / field.std()
    if coarse > 1:
        field = np.asarray(Image.fromarray(field).resize((columns, rows), Image.Resampling.BICUBIC))
    return field.astype(np.float32)


def creases(rng: Rng, like: Field, angle: float, size: float = 1.0) -> Field:
    """Return the relief of cloth that was folded and worn: soft waves, and in patches sharp creases along ``angle``."""
    relief = 2.6 * noise(rng, like, 48 * size, 22 * size, angle) + 0.9 * noise(
        rng, like, 24 * size, 10 * size, angle + 20
    )
    for along, across, turn, height in ((60, 14, -14, 3.2), (36, 9, 20, 2.0), (20, 6, -50, 0.9)):
        ridge = np.clip(1 - np.abs(noise(rng, like, along * size, across * size, angle + turn)) / 0.9, 0, None)
        patches = np.clip(noise(rng, like, 45 * size) * 0.7 + 0.35, 0, 1)
        relief = relief + height * ridge * patches
    return size * smoothed(relief.astype(np.float32), 1.3)


def lit(relief: Field, gloss: Field | float = 0.0) -> tuple[Field, Field]:
    """Light a relief (in units of length): return its diffuse share, 1 where it lies flat, and its highlights."""
    slope_y, slope_x = (
        0.6 * np.tanh(slope / 0.6) for slope in np.gradient(relief, 1 / SCALE)
    )  # cloth rounds edges off
    length = np.sqrt(slope_x**2 + slope_y**2 + 1)
    towards = (-slope_x * LIGHT[0] - slope_y * LIGHT[1] + LIGHT[2]) / length
    diffuse = 0.32 + 0.68 * np.clip(towards / LIGHT[2], 0, 1.5)
    hollow = np.clip(smoothed(relief, 9) - relief, -3, 6)  # little of the room's light reaches a hollow
    half = LIGHT + np.array([0, 0, 1.0])
    half /= np.linalg.norm(half)
    shine = np.clip((-slope_x * half[0] - slope_y * half[1] + half[2]) / length, 0, 1) ** 24
    return (diffuse * (1 - 0.05 * hollow)).astype(np.float32), (gloss * shine).astype(np.float32)


# --- Outlines -------------------------------------------------------------------------------------------------------


def curve(*points: Point) -> Points:
    """Return a smooth curve (Catmull-Rom) through the points; through two points, a straight line."""
    knots = np.array(points, float)
    knots = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    t = np.linspace(0, 1, 25)[:, None]
    pieces = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        pieces.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.concatenate(pieces)


def join(*pieces: Points) -> Points:
    """Chain curves into one outline; where two meet there may be a corner."""
    return np.concatenate(pieces)


def mirrored(points: Points) -> Points:
    """Return the curve's mirror image, left for right, run through backwards."""
    return points[::-1] * [-1, 1]


def symmetric(*pieces: Points) -> Points:
    """Complete a right half, drawn from the top middle to the bottom middle, to a closed outline."""
    half = join(*pieces)
    return join(half, mirrored(half))


def shifted(points: Points, dx: float, dy: float) -> Points:
    """Return the points moved along."""
    moved: Points = points + np.array([dx, dy])
    return moved


def ribbon(path: Points, width: float) -> Points:
    """Return the outline of a ribbon of the given width that follows the path."""
    step = np.gradient(path, axis=0)
    step /= np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-6)
    side = np.stack([-step[:, 1], step[:, 0]], axis=1) * width / 2
    return np.concatenate([path + side, (path - side)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    """Return an ellipse's outline."""
    t = np.linspace(0, 2 * np.pi, 60)
    return np.stack([x + rx * np.cos(t), y + ry * np.sin(t)], axis=1)


@dataclass(frozen=True, slots=True)
class Torso:
    """The cut of a garment's body, given by points of its right half."""

    neck: float
    top: float
    drop: float
    shoulder: Point
    armpit: Point
    waist: float
    hem: Point
    dip: float = 6.0
    scoop: float = 0.76  # how round the neck is: 0.4 is a V

    def neckline(self) -> Points:
        """Return the front neckline, from left to right."""
        low, side = (0.0, self.top + self.drop), (0.6 * self.neck, self.top + self.scoop * self.drop)
        return curve((-self.neck, self.top), (-side[0], side[1]), low, side, (self.neck, self.top))

    def armhole(self) -> Points:
        """Return the right armhole, from the shoulder down."""
        (sx, sy), (ax, ay) = self.shoulder, self.armpit
        return curve((sx, sy), (min(sx, ax) - 2, sy + 0.55 * (ay - sy)), (ax, ay))

    def side(self) -> Points:
        """Return the right side seam, from the armpit down."""
        (ax, ay), (hx, hy) = self.armpit, self.hem
        return curve((ax, ay), (self.waist, ay + 0.5 * (hy - ay)), (hx, hy))

    def bottom(self) -> Points:
        """Return the right half of the hem, towards the middle."""
        (hx, hy) = self.hem
        return curve((hx, hy), (hx * 0.55, hy + 0.75 * self.dip), (0, hy + self.dip))

    def front(self) -> Points:
        """Return the front's outline."""
        neckline = self.neckline()
        shoulder = curve((self.neck, self.top), self.shoulder)
        return symmetric(neckline[len(neckline) // 2 :], shoulder, self.armhole(), self.side(), self.bottom())

    def back(self, rise: float = 8.0) -> Points:
        """Return the piece of the back's inside that shows in the neck."""
        return join(curve((-self.neck, self.top), (0, self.top + rise), (self.neck, self.top)), self.neckline()[::-1])

    def sleeve(self, wrist: Point, width: float, bulge: float = 10.0) -> Points:
        """Return the right sleeve's outline; its cuff, ``width`` wide, has its middle at ``wrist``."""
        (sx, sy), (ax, ay) = self.shoulder, self.armpit
        outer, inner = self.cuff(wrist, width)
        slope = (sy - self.top) / (sx - self.neck)
        head = (sx + 0.10 * (outer[0] - sx) + 0.9 * bulge, sy + 0.12 * (outer[1] - sy))
        mid_outer = (sx + 0.5 * (outer[0] - sx) + bulge, sy + 0.5 * (outer[1] - sy))
        mid_inner = (0.5 * (ax + inner[0]) + 0.3 * bulge, 0.5 * (ay + inner[1]))
        return join(
            curve((sx - 30, sy - 30 * slope), (sx - 4, sy - 4 * slope), head, mid_outer, outer),
            curve(outer, inner),
            curve(inner, mid_inner, (ax, ay)),
            curve((ax, ay), (sx - 34, ay), (sx - 30, sy - 30 * slope)),
        )

    def end(self, wrist: Point, width: float, depth: float) -> Points:
        """Return the outline of the band that ends the right sleeve."""
        return ribbon(curve(*self.cuff(wrist, width)), depth)

    def cuff(self, wrist: Point, width: float) -> tuple[Point, Point]:
        """Return the sleeve's end, its outer and its inner point."""
        middle = (np.array(self.shoulder) + self.armpit) / 2
        axis = np.array(wrist) - middle
        axis /= np.linalg.norm(axis)
        side = np.array([axis[1], -axis[0]]) * width / 2
        outer, inner = np.array(wrist) + side, np.array(wrist) - side
        return (outer[0], outer[1]), (inner[0], inner[1])


# --- Fabrics --------------------------------------------------------------------------------------------------------

Pattern: TypeAlias = Callable[[Field, Field, Rng], Field]
"""From the fabric's own coordinates, which turn with its panel, to a colour or to a relief per pixel."""


@dataclass(frozen=True, slots=True)
class Fabric:
    """What a panel is made of."""

    base: Colour
    pattern: Pattern | None = None
    """Colour per pixel, instead of ``base`` everywhere."""
    relief: Pattern | None = None
    """Height that the making gives it, as ribs or quilting."""
    crease: float = 1.0
    grain: float = 0.028
    gloss: float = 0.0


def stripes(one: Colour, other: Colour, period: float, share: float = 0.5) -> Pattern:
    """Return stripes across v; turn the panel for upright ones."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        inside = np.clip((np.abs((v / period) % 1 - 0.5) * 2 - (1 - share)) * period, 0, 1)
        return mix(flat(one), flat(other), inside)

    return pattern


def checks(base: Colour, line: Colour, period: float) -> Pattern:
    """Return a check of translucent lines."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        warp, weft = (np.clip((0.42 - (w / period) % 1) * 8, 0, 1) for w in (u, v))
        return mix(flat(base), flat(line), (0.45 * warp + 0.45 * weft).astype(np.float32))

    return pattern


def melange(base: Colour, amount: float = 0.06) -> Pattern:
    """Return yarn of two tones, as sweatshirts are knitted from."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        return flat(base) + (amount * noise(rng, u, 2.2, 0.5) + 0.3 * amount * noise(rng, u, 6, 6))[..., None]

    return pattern


def denim(base: Colour, worn: Callable[[Field, Field], Field]) -> Pattern:
    """Return indigo twill that is paler where ``worn`` says, and mottled as washing leaves it."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        pale = np.clip(worn(u, v) + 0.07 * noise(rng, u, 14) + 0.02 * noise(rng, u, 6, 0.6, 90), 0, 1)
        thread = 0.022 * noise(rng, u, 2.0, 0.4, 55)
        return mix(flat(base), flat((0.66, 0.73, 0.80)), pale) + thread[..., None]

    return pattern


def blossoms(base: Colour, petals: tuple[Colour, ...], leaf: Colour, size: float) -> Pattern:
    """Return a print of scattered flowers with leaves."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        image = Image.new("RGB", u.shape[::-1], tuple(round(255 * c) for c in base))
        draw = ImageDraw.Draw(image)

        def dot(x: float, y: float, radius: float, fill: Colour) -> None:
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), tuple(round(255 * c) for c in fill))

        step = 3.1 * size * SCALE
        for row in range(int(u.shape[0] / step) + 2):
            for column in range(int(u.shape[1] / step) + 2):
                x, y = (np.array([column + row % 2 / 2, row]) + rng.uniform(-0.22, 0.22, 2)) * step
                r, turn = size * SCALE * rng.uniform(0.55, 1.0), rng.uniform(0, 7)
                for k in range(3):
                    dot(x + 1.7 * r * np.cos(turn + k), y + 1.7 * r * np.sin(turn + k), 0.36 * r, leaf)
                fill = petals[rng.integers(len(petals))]
                for k in range(5):
                    dot(x + 0.62 * r * np.cos(turn + k * 1.257), y + 0.62 * r * np.sin(turn + k * 1.257), 0.5 * r, fill)
                dot(x, y, 0.3 * r, (0.93, 0.78, 0.35))
        return as_field(np.asarray(image) / 255)

    return pattern


def ribs(period: float, height: float = 0.5) -> Pattern:
    """Return ribs that run along v."""
    return lambda u, v, rng: height * np.sin(2 * np.pi * u / period).astype(np.float32)


def quilting(period: float, height: float) -> Pattern:
    """Return down-filled chambers, seams along u, with the puckers that the seams draw in."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        across = (v + 1.5 * noise(rng, u, 30)) / period
        chamber = np.sqrt(np.abs(np.sin(np.pi * across)) + 0.02)
        pucker = noise(rng, u, 9, 3, 90) * (1.15 - chamber)
        return (height * chamber * (1 + 0.1 * noise(rng, u, 14)) + 1.5 * pucker).astype(np.float32)

    return pattern


def fur(base: Colour) -> Fabric:
    """Return long hair."""

    def tone(u: Field, v: Field, rng: Rng) -> Field:
        locks = 0.5 * noise(rng, u, 5, 0.8, 70) + 0.5 * noise(rng, u, 5, 0.8, 115) + 0.6 * noise(rng, u, 7)
        return as_field(flat(base) * (1 + 0.22 * locks)[..., None])

    def relief(u: Field, v: Field, rng: Rng) -> Field:
        return 1.2 * noise(rng, u, 4, 1.2, 90) + 2.0 * noise(rng, u, 7)

    return Fabric(base, tone, relief, crease=0, grain=0.05)


def gathers(apex: float, count: float, height: float, top: float, bottom: float) -> Pattern:
    """Return folds that fan out from ``apex`` and deepen from ``top`` to ``bottom``."""

    def pattern(u: Field, v: Field, rng: Rng) -> Field:
        fan = np.arctan2(u, np.maximum(v - apex, 1)) * count
        fan = fan + 1.3 * noise(rng, u, 260, 40, 90) + 0.45 * noise(rng, u, 110, 18, 90)
        depth = np.clip((v - top) / (bottom - top), 0.0, 1) ** 0.7
        fold = (np.sin(fan) + 0.4 * np.sin(2.3 * fan + 1)) * (1 + 0.4 * noise(rng, u, 120, 40, 90))
        return as_field(height * depth * fold)

    return pattern


# --- Garments -------------------------------------------------------------------------------------------------------


class Garment:
    """A garment while it is put together, panel over panel."""

    def __init__(self, seed: int, tilt: float = 0.0, wobble: float = 1.0, size: float = 1.1) -> None:
        self.rng = np.random.default_rng(seed)
        self.size = size
        self.colour = np.zeros((ROWS, COLUMNS, 3), np.float32)
        self.alpha, self.height, self.gloss = (np.zeros((ROWS, COLUMNS), np.float32) for _ in range(3))
        self.shadow = np.ones((ROWS, COLUMNS), np.float32)
        self.turn = np.deg2rad(tilt)
        waves = self.rng.uniform(0.6, 1.0, (7, 2))
        lengths = np.array([300, 230, 170, 120, 60, 42, 30.0])
        angles = self.rng.uniform(0, 2 * np.pi, 7)
        self.waves = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 2 * np.pi / lengths[:, None]
        self.amplitudes = waves * wobble * np.array([4, 3, 2, 1.5, 0.6, 0.5, 0.35])[:, None]
        self.phases = self.rng.uniform(0, 2 * np.pi, 7)

    def place(self, points: Points) -> Points:
        """Lay points down by hand: turned a little, and nowhere quite straight or symmetric; returns pixels."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        moved = points + np.sin(points @ self.waves.T + self.phases) @ self.amplitudes
        moved = self.size * moved @ np.array([[cos, sin], [-sin, cos]])
        pixels: Points = shifted(moved, COLUMNS / SCALE / 2, ROWS / SCALE / 2) * SCALE
        return pixels

    def window(self, points: Points, pad: float) -> Window:
        """Return the part of the picture that holds the points, with ``pad`` units around them."""
        pixels = self.place(points)
        low = np.floor((pixels.min(axis=0) - pad * SCALE) / 32).astype(int) * 32  # Fourier transforms like such sizes
        high = np.ceil((pixels.max(axis=0) + pad * SCALE) / 32).astype(int) * 32
        (left, above), (right, below) = np.maximum(low, 0), np.minimum(high, [COLUMNS, ROWS])
        return slice(above, below), slice(left, right)

    def mask(self, outline: Points, window: Window) -> Field:
        """Return 1 inside a closed outline and 0 outside."""
        rows, columns = window
        image = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start))
        points = shifted(self.place(outline), -columns.start, -rows.start)
        ImageDraw.Draw(image).polygon([(x, y) for x, y in points.tolist()], fill=255)
        return as_field(np.asarray(image) / 255)

    def line(self, path: Points, width: float, window: Window, dash: int = 0) -> Field:
        """Return 1 on a line, dashed if ``dash`` is its dashes' length in points of the path, and 0 elsewhere."""
        rows, columns = window
        image = Image.new("L", (columns.stop - columns.start, rows.stop - rows.start))
        draw, points = ImageDraw.Draw(image), shifted(self.place(path), -columns.start, -rows.start)
        pixels = [(x, y) for x, y in points.tolist()]
        runs = [pixels[i : i + dash + 1] for i in range(0, len(pixels) - 1, 2 * dash)] if dash else [pixels]
        for run in runs:
            draw.line(run, fill=255, width=max(1, round(width * SCALE)), joint="curve")
        return as_field(np.asarray(image) / 255)

    def panel(
        self,
        outline: Points,
        fabric: Fabric,
        *,
        rise: float = 1.8,
        edge: float = 3.0,
        angle: float = 90.0,
        inherit: float = 0.0,
        cast: float = 0.3,
    ) -> None:
        """Lay a panel on top.

        Args:
            outline: its closed outline.
            fabric: what it is made of.
            rise: its thickness, reached ``edge`` units from its rim.
            edge: see ``rise``.
            angle: direction of its creases in degrees; 90 is up and down. The fabric's coordinates turn with it.
            inherit: share of the relief below that shows through; 0 for a panel that lies by itself.
            cast: depth of the shadow that it casts on what lies below.
        """
        window = self.window(outline, 3 * edge + 14)
        mask = self.mask(outline, window)
        turn = np.deg2rad(angle - 90)
        x, y = X[window] / self.size, Y[window] / self.size
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        u, v = u + 1.2 * noise(self.rng, mask, 30), v + 1.2 * noise(self.rng, mask, 30)
        rim = np.clip(2 * smoothed(mask, edge) - 1, 0, 1)
        height = rise * np.sin(rim * np.pi / 2) + inherit * self.height[window]
        if fabric.crease:
            height = height + fabric.crease * creases(self.rng, mask, angle)
        if fabric.relief:
            height = height + fabric.relief(u, v, self.rng) * np.clip(rim * 1.6, 0, 1)
        fill = fabric.pattern(u, v, self.rng) if fabric.pattern else flat(fabric.base)
        tone = 1 + fabric.grain * (0.8 * noise(self.rng, mask, 0.6) + 0.2 * noise(self.rng, mask, 5))
        fill = as_field(fill * tone[..., None])
        under = np.roll(smoothed(mask, 3.5), (3 * SCALE, 2 * SCALE), (0, 1))
        shade = self.shadow[window] * (1 - cast * np.clip(1.3 * under, 0, 1))
        self.shadow[window] = mix(shade, np.ones_like(mask), mask)
        self.colour[window] = mix(self.colour[window], fill, mask)
        self.height[window] = mix(self.height[window], height, mask)
        self.gloss[window] = mix(self.gloss[window], np.full_like(mask, fabric.gloss), mask)
        self.alpha[window] = np.maximum(self.alpha[window], mask)

    def pair(
        self, outline: Points, fabric: Fabric, *, rise: float = 1.8, edge: float = 3.0, angle: float = 90.0
    ) -> None:
        """Lay a right panel and its mirror image."""
        self.panel(outline, fabric, rise=rise, edge=edge, angle=angle)
        self.panel(mirrored(outline), fabric, rise=rise, edge=edge, angle=180 - angle)

    def seam(self, path: Points, depth: float = 1.6, width: float = 1.2) -> None:
        """Draw cloth in along a line."""
        window = self.window(path, 4 * width)
        groove = smoothed(self.line(path, width, window), width)
        self.height[window] -= depth * groove
        self.shadow[window] *= 1 - 0.25 * groove

    def stitch(self, path: Points, thread: Colour, dash: int = 2) -> None:
        """Sew along a line with a visible thread."""
        self.seam(path, 0.7, 1.0)
        window = self.window(path, 4)
        self.colour[window] = mix(self.colour[window], flat(thread), 0.8 * self.line(path, 0.9, window, dash))

    def paint(self, outline: Points, ink: Colour, strength: float = 0.9) -> None:
        """Print a shape on the cloth."""
        window = self.window(outline, 2)
        self.colour[window] = mix(self.colour[window], flat(ink), strength * self.mask(outline, window))

    def darken(self, outline: Points, depth: float) -> None:
        """Take light away from a part that lies deeper."""
        window = self.window(outline, 8)
        self.shadow[window] *= 1 - depth * smoothed(self.mask(outline, window), 2)

    def button(self, x: float, y: float, radius: float, base: Colour) -> None:
        """Sew a button on."""
        plain = Fabric(base, crease=0, grain=0.01, gloss=0.25)
        self.panel(ellipse(x, y, radius, radius), plain, rise=1.5, edge=1.2, inherit=0.4, cast=0.4)
        for side in (-1, 1):
            self.paint(ellipse(x + side * 0.3 * radius, y, 0.16 * radius, 0.16 * radius), (0.15, 0.13, 0.12))

    def hem(self, path: Points, inset: float, thread: Colour) -> None:
        """Sew a hem: a row of stitches ``inset`` above a lower rim."""
        self.stitch(shifted(path, 0, -inset), thread)
        self.stitch(shifted(path, 0, 2.5 - inset), thread)


# --- What it lies on ------------------------------------------------------------------------------------------------


def planks(rng: Rng, base: Colour, width: float = 86.0, angle: float = 90.0) -> Field:
    """Return a floor of wooden boards that run along ``angle``."""
    turn = np.deg2rad(angle)
    u, v = X * np.cos(turn) + Y * np.sin(turn), Y * np.cos(turn) - X * np.sin(turn)
    v = v + rng.uniform(0, width)
    board = np.floor(v / width).astype(int) + 20
    shift = rng.uniform(0, 900, 60)[board]
    piece = (board * 7 + np.floor((u + shift) / 620).astype(int)) % 97
    tone = rng.uniform(-0.06, 0.06, 97)[piece]
    rings = v / 7 + 2.2 * noise(rng, X, 130, 14, angle) + rng.uniform(0, 9, 97)[piece]
    grain = (
        0.028 * np.sin(2 * np.pi * rings) + 0.03 * noise(rng, X, 40, 1.0, angle) + 0.018 * noise(rng, X, 7, 0.5, angle)
    )
    gap = np.minimum(np.abs((v / width + 0.5) % 1 - 0.5) * width, np.abs(((u + shift) / 620 + 0.5) % 1 - 0.5) * 620)
    shade = (1 + 1.25 * (tone + grain)) * (1 - 0.55 * np.clip(1.3 - gap, 0, 1))
    tint = 1 + np.array([0.0, -0.25, -0.6]) * (tone + 0.5 * grain)[..., None]
    return as_field(np.clip(flat(base) * shade[..., None] * tint, 0, 1))


def sheet(rng: Rng, base: Colour, rumple: float = 1.0) -> Field:
    """Return a bed sheet, somewhat rumpled."""
    angle = rng.uniform(0, 180)
    relief = rumple * (4 * noise(rng, X, 90, 35, angle) + 0.9 * creases(rng, X, angle + 30, 1.5) + noise(rng, X, 25))
    weave = 0.012 * noise(rng, X, 2.5, 0.5) + 0.012 * noise(rng, X, 2.5, 0.5, 90)
    diffuse, _ = lit(relief)
    return as_field(np.clip(flat(base) * (0.25 + 0.75 * diffuse + weave)[..., None], 0, 1))


def carpet(rng: Rng, base: Colour) -> Field:
    """Return a carpet with a short, tufted pile."""
    tufts = noise(rng, X, 1.9)
    diffuse, _ = lit(0.4 * tufts + 0.45 * noise(rng, X, 4) + 0.6 * noise(rng, X, 15))
    tone = 0.05 * tufts + 0.02 * noise(rng, X, 50)
    return as_field(np.clip(flat(base) * (0.15 + 0.85 * diffuse + tone)[..., None], 0, 1))


def tiles(rng: Rng, base: Colour, size: float = 210.0, angle: float = 40.0) -> Field:
    """Return stone tiles with dark grout."""
    turn = np.deg2rad(angle)
    u, v = X * np.cos(turn) + Y * np.sin(turn) + 60, Y * np.cos(turn) - X * np.sin(turn) + 35
    gap = np.minimum(*(np.abs((w / size + 0.5) % 1 - 0.5) * size for w in (u, v)))
    marble = 0.022 * noise(rng, X, 40, 14, 25) + 0.012 * noise(rng, X, 5)
    shade = (1 + marble) * (1 - 0.5 * np.clip(2.4 - gap, 0, 1))
    return as_field(np.clip(flat(base) * shade[..., None], 0, 1))


def wall(rng: Rng, base: Colour) -> Field:
    """Return a painted plaster wall."""
    diffuse, _ = lit(0.05 * noise(rng, X, 1.6) + 0.12 * noise(rng, X, 7))
    return as_field(np.clip(flat(base) * (diffuse + 0.02 * noise(rng, X, 90))[..., None], 0, 1))


def photograph(garment: Garment, ground: Field, *, lift: float = 6.0, warmth: float = 0.02) -> Image.Image:
    """Light the garment, let it cast its shadow on the ground, and take the picture.

    Args:
        garment: what lies or hangs there.
        ground: what is behind it, ``[ROWS, COLUMNS, 3]``.
        lift: how far it stands off the ground, which sets how far its shadow falls.
        warmth: how much redder, and less blue, the light is than white.
    """
    rng, alpha = garment.rng, smoothed(garment.alpha, 0.5)
    near = smoothed(alpha, 2.5 + 0.2 * lift)
    far = np.roll(smoothed(alpha, 6 + lift), (int(1.1 * lift * SCALE), int(0.9 * lift * SCALE)), (0, 1))
    ground = ground * (1 - 0.42 * near)[..., None] * (1 - 0.38 * far)[..., None]
    diffuse, shine = lit(smoothed(garment.height, 0.7), garment.gloss)
    cloth = garment.colour * (diffuse * garment.shadow)[..., None] + 0.02 + shine[..., None]
    picture = mix(ground.astype(np.float32), cloth.astype(np.float32), alpha)

    fall = 1 - 0.10 * (X * 0.6 + Y * 0.8) / HEIGHT - 0.22 * ((X / WIDTH) ** 2 + (Y / HEIGHT) ** 2)
    fall = fall + 0.03 * noise(rng, X, 160)
    picture = picture * fall[..., None] * np.array([1 + warmth, 1.0, 1 - 1.6 * warmth])
    picture = np.clip(picture, 0, 1.25)
    picture = picture * (1.04 - 0.06 * picture)  # the sensor's shoulder
    sensor = rng.standard_normal((ROWS, COLUMNS, 1)) * 0.010 + rng.standard_normal((ROWS, COLUMNS, 3)) * 0.008
    pixels = Image.fromarray((np.clip(picture + sensor, 0, 1) * 255 + 0.5).astype(np.uint8))

    corners = np.array(
        [(MARGIN, MARGIN), (MARGIN, MARGIN + HEIGHT), (MARGIN + WIDTH, MARGIN + HEIGHT), (MARGIN + WIDTH, MARGIN)]
    )
    quad = ((corners + rng.uniform(-0.3, 0.3, (4, 2)) * MARGIN) * SCALE).ravel()
    big = pixels.transform(
        (WIDTH * SCALE, HEIGHT * SCALE), Image.Transform.QUAD, quad.tolist(), Image.Resampling.BICUBIC
    )
    return big.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
