"""Draw the example pictures: garments laid flat or hung up, as someone selling them would photograph them.

    python examples/draw.py [OUT_DIR] [--sheet FILE]

A file's stem is the class that the picture shows. Every picture is seeded, so drawing twice gives the same pictures.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from studio import (
    HEIGHT,
    WIDTH,
    Colour,
    Fabric,
    Field,
    Garment,
    Point,
    Points,
    Rng,
    Torso,
    blossoms,
    carpet,
    checks,
    colour,
    curve,
    denim,
    ellipse,
    fur,
    gathers,
    join,
    melange,
    mirrored,
    photograph,
    planks,
    quilting,
    ribbon,
    ribs,
    sheet,
    shifted,
    stripes,
    symmetric,
    tiles,
    wall,
)


def neckband(garment: Garment, torso: Torso, band: Fabric, width: float = 11.0) -> None:
    """Sew the knitted band around a round neck."""
    back = curve((2 - torso.neck, torso.top + 4), (0, torso.top + 5), (torso.neck - 2, torso.top + 4))
    garment.panel(ribbon(back, width), band, rise=1.5, edge=2.5, inherit=0.3)
    garment.panel(ribbon(torso.neckline(), width), band, rise=2.2, edge=2.5, inherit=0.3)
    garment.seam(shifted(torso.neckline(), 0, 0.55 * width), 1.2)


def inside_back(garment: Garment, torso: Torso, fabric: Fabric, rise: float = 6.0) -> None:
    """Draw the back's inside, which shows in the neck, and the maker's label."""
    garment.panel(torso.back(rise), fabric, rise=0.5)
    garment.darken(torso.back(rise), 0.3)
    label = Fabric(colour("ece9e2"), crease=0, grain=0.01)
    y = torso.top + rise + 5
    garment.panel(join(curve((-11, y), (11, y)), curve((11, y + 13), (-11, y + 13))), label, rise=0.6, edge=1)


def t_shirt() -> Image.Image:
    """A printed T-shirt on a bed."""
    garment = Garment(11, tilt=1.5, size=1.05)
    cloth = Fabric(colour("dedcd6"), crease=0.75)
    torso = Torso(52, -190, 36, (134, -164), (128, -66), 126, (130, 204))
    inside_back(garment, torso, replace(cloth, base=colour("c9c7c0")))
    garment.pair(torso.sleeve((188, -50), 92, 6), cloth, angle=55)
    outer, inner = torso.cuff((184, -56), 88)
    for path in (curve(outer, inner), mirrored(curve(outer, inner))):
        garment.stitch(path, colour("c4c2bb"))
    garment.panel(torso.front(), cloth)
    neckband(garment, torso, Fabric(colour("d6d4ce"), relief=ribs(3.2, 0.35), crease=0.1))
    garment.hem(join(mirrored(torso.bottom()[::-1]), torso.bottom()[::-1]), 9, colour("c4c2bb"))
    garment.paint(ellipse(0, -20, 66, 66), colour("e08a3c"))
    for k, y in enumerate((-16, 4, 24)):
        garment.paint(ribbon(curve((-70, y), (70, y)), 4 + 2.5 * k), cloth.base, 1)
    hills = join(
        curve((-82, 52), (-50, 14), (-26, 36), (10, -2), (44, 38), (60, 22), (82, 52)), curve((82, 54), (-82, 54))
    )
    garment.paint(hills, colour("1f4a5f"))
    return photograph(garment, sheet(garment.rng, colour("8c2f46"), 0.7))


def longsleeve() -> Image.Image:
    """A knitted jumper on a bed."""
    garment = Garment(22, tilt=-2)
    knit = Fabric(
        colour("9a4a46"), pattern=melange(colour("8d3f3d"), 0.05), relief=ribs(5, 0.22), crease=0.8, grain=0.07
    )
    rib = replace(knit, relief=ribs(6, 0.9), crease=0.2)
    torso = Torso(52, -190, 34, (128, -163), (122, -72), 122, (122, 168), 3)
    inside_back(garment, torso, knit)
    garment.pair(torso.sleeve((192, 120), 46, 16), knit, rise=5, edge=7, angle=75)
    garment.panel(torso.front(), knit, rise=4, edge=5)
    garment.pair(torso.end((193, 128), 43, 34), rib, rise=4, edge=5, angle=74)
    garment.panel(
        symmetric(curve((0, 162), (122, 160)), curve((122, 160), (119, 194)), curve((119, 194), (0, 197))),
        rib,
        rise=4,
        edge=4,
    )
    neckband(garment, torso, replace(rib, relief=ribs(5, 0.7)), 16)
    return photograph(garment, sheet(garment.rng, colour("e4e0d8")))


def collar(garment: Garment, torso: Torso, fabric: Fabric, point: Point, tipping: Colour | None = None) -> None:
    """Lay down a turned collar: its stand at the back, and two leaves that end at ``point``."""
    neck, top = torso.neck, torso.top
    stand = join(
        curve((2 - neck, top + 4), (12 - neck, top - 9), (0, top - 16), (neck - 12, top - 9), (neck - 2, top + 4)),
        curve((neck - 4, top + 14), (0, top + 3), (4 - neck, top + 14)),
    )
    garment.panel(stand, fabric, rise=2.5, edge=3, angle=0)
    fold = curve(
        (3, top + torso.drop - 2),
        (0.6 * neck, top + (torso.scoop - 0.14) * torso.drop),
        (neck - 9, top + 3),
        (neck - 13, top - 9),
    )
    rim = join(
        curve((neck + 9, top + 2), (0.5 * (neck + 9 + point[0]) + 3, 0.5 * (top + 2 + point[1])), point),
        curve(point, (3, top + torso.drop - 2)),
    )
    slim = replace(fabric, crease=0.2)
    for side, angle in ((1, 60), (-1, 120)):
        leaf = join(fold, curve((neck - 13, top - 9), (neck - 1, top - 7), (neck + 9, top + 2)), rim)
        garment.panel(leaf * [side, 1], slim, rise=3, edge=3, angle=angle, cast=0.45)
        if tipping:
            garment.panel(
                ribbon(shifted(rim, -3, -3) * [side, 1], 2.5), Fabric(tipping, crease=0), rise=0.5, edge=1, cast=0
            )


def shirt() -> Image.Image:
    """A checked shirt with long sleeves on a tiled floor."""
    garment = Garment(33, tilt=1)
    cloth = Fabric(colour("dfe6ee"), pattern=checks(colour("e3e9f0"), colour("274a86"), 17), crease=0.95)
    torso = Torso(46, -208, 40, (126, -180), (120, -90), 112, (112, 168), 38)
    inside_back(garment, torso, cloth, 3)
    garment.pair(torso.sleeve((180, 108), 42, 14), cloth, rise=3.5, edge=4, angle=72)
    garment.pair(torso.end((181, 112), 47, 34), replace(cloth, crease=0.2), angle=72)
    garment.panel(torso.front(), cloth)
    placket = curve((1, -168), (1, 20), (2, 206))
    garment.panel(ribbon(placket, 21), replace(cloth, crease=0.1), rise=1.6, edge=2, inherit=0.7, cast=0.2)
    for y in np.linspace(-148, 178, 7):
        garment.button(1, float(y), 4.2, colour("f3f1ea"))
    pocket = join(
        curve((38, -92), (88, -92)),
        curve((88, -92), (88, -42)),
        curve((88, -42), (63, -30)),
        curve((63, -30), (38, -42), (38, -92)),
    )
    garment.panel(pocket, replace(cloth, crease=0.15), rise=1.4, edge=2, inherit=0.7, cast=0.25)
    collar(garment, torso, cloth, (34, -142))
    garment.button(0, -166, 4, colour("f3f1ea"))
    garment.hem(torso.bottom()[::-1], 6, colour("b9c4d6"))
    garment.hem(mirrored(torso.bottom()), 6, colour("b9c4d6"))
    return photograph(garment, tiles(garment.rng, colour("cdc6b8")))


def polo() -> Image.Image:
    """A polo shirt on a carpet."""
    garment = Garment(44, tilt=-1.5, size=1.05)
    cloth = Fabric(colour("2f7a74"), crease=0.9, grain=0.06)
    rib = replace(cloth, base=colour("296d67"), relief=ribs(3.5, 0.3), crease=0.15)
    white = Fabric(colour("dcdad0"), crease=0)
    torso = Torso(50, -188, 82, (136, -160), (128, -66), 124, (130, 196), scoop=0.5)
    inside_back(garment, torso, replace(cloth, base=colour("1d5550")), 3)
    garment.pair(torso.sleeve((186, -52), 88, 6), cloth, angle=55)
    garment.pair(torso.end((184, -57), 84, 13), rib, rise=2.5, angle=55)
    garment.panel(torso.front(), cloth)
    garment.panel(ribbon(curve((0, -112), (1, -38)), 25), replace(cloth, crease=0.1), rise=2, edge=2, inherit=0.6)
    box = join(curve((-10, -100), (-10, -41)), curve((-10, -41), (11, -41)), curve((11, -41), (11, -100)))
    garment.stitch(box, colour("46918a"))
    for y in (-92, -58):
        garment.button(0.5, y, 4.4, white.base)
    collar(garment, torso, rib, (56, -104))
    garment.hem(join(mirrored(torso.bottom()[::-1]), torso.bottom()[::-1]), 9, colour("46918a"))
    badge = join(curve((56, -76), (63, -90), (72, -78)), curve((72, -78), (64, -68), (56, -76)))
    garment.paint(badge, white.base)
    return photograph(garment, carpet(garment.rng, colour("c9bda8")))


def pants() -> Image.Image:
    """Washed jeans on a wooden floor."""
    garment = Garment(55, tilt=1)
    gold = colour("c08a4a")

    def worn(u: Field, v: Field) -> Field:
        thigh = np.exp(-(((np.abs(u) - 74) / 26) ** 2) - ((v + 60) / 120) ** 2)
        return (0.18 + 0.42 * thigh).astype(np.float32)

    cloth = Fabric(colour("2c4468"), pattern=denim(colour("2c4468"), worn), crease=1.15, grain=0.08)
    stiff = replace(cloth, crease=0.25)
    back = symmetric(curve((0, -258), (84, -264)), curve((84, -264), (86, -236), (0, -226)))
    garment.panel(back, stiff, rise=1)
    garment.darken(back, 0.4)
    leg = join(
        curve((0, -243), (50, -246), (90, -262)),
        curve((90, -262), (108, -190), (118, -110)),
        curve((118, -110), (124, 40), (122, 262)),
        curve((122, 262), (92, 268), (60, 264)),
        curve((60, 264), (44, 80), (8, -98)),
        curve((8, -98), (0, -106)),
    )
    garment.pair(leg, cloth, rise=5, edge=6, angle=92)
    for path in (
        curve((60, -70), (30, -92), (2, -98)),
        curve((90, -60), (40, -84), (2, -94)),
        curve((110, 70), (80, 62), (56, 70)),
        curve((70, 90), (95, 84), (116, 96)),
    ):
        garment.seam(path, 2.2, 3)
        garment.seam(shifted(mirrored(path), 0, 5), 2.2, 3)
    band = symmetric(
        curve((0, -245), (52, -248), (89, -264)),
        curve((89, -264), (94, -240)),
        curve((94, -240), (52, -226), (0, -222)),
    )
    garment.panel(band, stiff, rise=2.5, edge=2.5, cast=0.25)
    garment.hem(join(curve((-94, -239), (-52, -225), (0, -221)), curve((0, -221), (52, -225), (94, -239))), 0, gold)
    for side in (-1.0, 1.0):
        pocket = curve((40, -224), (52, -192), (80, -178), (104, -186)) * [side, 1]
        garment.stitch(pocket, gold)
        garment.stitch(shifted(pocket, 0, 4), gold)
        garment.stitch(curve((114, -100), (115, 40), (110, 256)) * [side, 1], colour("5b6f92"))
        garment.stitch(curve((60, 252), (92, 257), (122, 251)) * [side, 1], gold)
        for x, y in ((62.0, -240.0), (30.0, -236.0)):
            garment.panel(ribbon(curve((x * side, y - 16), (x * side, y + 17)), 8), stiff, rise=2, edge=1.5)
    garment.seam(curve((0, -222), (1, -160), (0, -100)), 2, 1.2)
    garment.stitch(curve((20, -222), (21, -160), (14, -128), (0, -112)), gold)
    garment.stitch(curve((24, -222), (25, -158), (17, -124), (0, -107)), gold)
    garment.button(0, -234, 6.5, colour("a88a62"))
    return photograph(garment, planks(garment.rng, colour("c9ad86"), 96, 88))


def shorts() -> Image.Image:
    """Shorts with a drawstring on a carpet."""
    garment = Garment(66, tilt=-2)
    cloth = Fabric(colour("31415a"), crease=1.2)
    leg = join(
        curve((0, -128), (60, -130), (112, -132)),
        curve((112, -132), (146, -30), (176, 118)),
        curve((176, 118), (110, 138), (24, 134)),
        curve((24, 134), (14, 60), (0, 26)),
    )
    back = symmetric(curve((0, -146), (108, -150)), curve((108, -150), (110, -130), (0, -120)))
    garment.panel(back, cloth, rise=1)
    garment.darken(back, 0.35)
    garment.pair(leg, cloth, rise=4, edge=5, angle=100)
    garment.seam(curve((0, -120), (1, -40), (0, 28)), 2.5, 1.5)
    for side in (-1.0, 1.0):
        garment.stitch(curve((28, 118), (105, 124), (172, 104)) * [side, 1], colour("4a5b76"))
        garment.seam(curve((104, -92), (114, -20), (136, 40)) * [side, 1], 2.5, 1.2)
        garment.seam(curve((10, 24), (50, -2), (90, 8)) * [side, 1], 3, 4)
        garment.seam(curve((6, 34), (36, 40), (70, 62)) * [side, 1], 3, 4)
    gathered = replace(cloth, relief=gathers(-900, 260, 1.3, -160, -150), crease=0.3)
    band = symmetric(
        curve((0, -138), (62, -141), (114, -146)), curve((114, -146), (118, -110)), curve((118, -110), (0, -102))
    )
    garment.panel(band, gathered, rise=4, edge=5, cast=0.3)
    for y in (-128, -116):
        garment.seam(curve((-116, y), (0, y + 5), (116, y)), 1.6, 1)
    cord = Fabric(colour("e6e2d8"), relief=ribs(3, 0.5), crease=0, grain=0.05)
    for path in (
        curve((-8, -120), (-22, -82), (-14, -44), (-26, -14)),
        curve((8, -120), (20, -90), (12, -52), (24, -26)),
    ):
        garment.panel(ribbon(path, 5.5), cord, rise=3, edge=2, cast=0.5)
    return photograph(garment, carpet(garment.rng, colour("bfb4a2")))


def dress() -> Image.Image:
    """A flowered summer dress on a bed."""
    garment = Garment(77, tilt=1)
    printed = blossoms(colour("27345c"), (colour("e8a5a0"), colour("f1e4d8"), colour("d4605f")), colour("5f8f72"), 7.5)
    cloth = Fabric(colour("27345c"), pattern=printed, crease=0.7)
    torso = Torso(58, -258, 62, (84, -256), (84, -176), 76, (68, -68), 2)
    inside_back(garment, torso, replace(cloth, base=colour("202b4d"), pattern=None), 26)
    skirt = symmetric(
        curve((0, -74), (68, -74)),
        curve((68, -74), (112, 70), (176, 246)),
        curve((176, 246), (120, 266), (60, 262), (0, 272)),
    )
    garment.panel(skirt, replace(cloth, relief=gathers(-260, 34, 4.2, -90, 230)), rise=3, edge=4)
    garment.panel(torso.front(), cloth)
    waistband = symmetric(curve((0, -76), (69, -78)), curve((69, -78), (69, -60)), curve((69, -60), (0, -57)))
    garment.panel(waistband, replace(cloth, crease=0.3), rise=2.5, edge=3)
    neckline = torso.neckline()
    garment.stitch(shifted(neckline, 0, 5), colour("3c4a78"))
    for side in (-1, 1):
        garment.seam(curve((60, -150), (44, -110), (36, -80)) * [side, 1], 1.6, 1.5)
        garment.stitch(shifted(torso.armhole(), -5, 0) * [side, 1], colour("3c4a78"))
    return photograph(garment, sheet(garment.rng, colour("ebe6dc"), 0.9))


def skirt() -> Image.Image:
    """A flared skirt with a waistband on a wooden floor."""
    garment = Garment(88, tilt=-1)
    cloth = Fabric(colour("a8763e"), crease=0.55)
    outline = symmetric(
        curve((0, -168), (84, -166)),
        curve((84, -166), (128, -20), (188, 168)),
        curve((188, 168), (120, 196), (50, 194), (0, 204)),
    )
    garment.panel(outline, replace(cloth, relief=gathers(-420, 38, 5.5, -170, 150)), rise=3, edge=4)
    back = symmetric(curve((0, -204), (76, -208)), curve((76, -208), (80, -184), (0, -180)))
    garment.panel(back, cloth, rise=1)
    garment.darken(back, 0.35)
    band = symmetric(curve((0, -194), (78, -202)), curve((78, -202), (86, -166)), curve((86, -166), (0, -158)))
    garment.panel(band, replace(cloth, crease=0.3), rise=3, edge=3, cast=0.4)
    for y in (-190, -166):
        garment.stitch(curve((-80, y - 6), (0, y), (80, y - 6)), colour("c69355"))
    return photograph(garment, planks(garment.rng, colour("7d5a40"), 76, 92))


def hat() -> Image.Image:
    """A baseball cap, seen from the front, on a sheet."""
    garment = Garment(99, tilt=3, wobble=0.6)

    def domed(u: Field, v: Field, rng: Rng) -> Field:
        """The head's roundness."""
        return (60 - 60 * ((u / 150) ** 2 + ((v + 10) / 190) ** 2)).clip(0).astype(np.float32)

    def bent(u: Field, v: Field, rng: Rng) -> Field:
        """The brim's bend, down to both sides."""
        return (50 - 50 * (u / 156) ** 2 - 0.06 * v).astype(np.float32)

    cloth = Fabric(colour("a32a2c"), crease=0.3, grain=0.06)
    thread = colour("b84a48")
    crown = symmetric(
        curve((0, -200), (56, -194), (108, -158), (136, -84), (142, 44)), curve((142, 44), (84, 22), (0, 14))
    )
    garment.panel(crown, replace(cloth, relief=domed), rise=8, edge=9)
    for side in (-1, 1):
        garment.seam(curve((0, -198), (54, -156), (82, -70), (88, 30)) * [side, 1], 2.2, 1.2)
        garment.stitch(curve((7, -198), (60, -156), (88, -70), (94, 30)) * [side, 1], thread)
        garment.stitch(curve((1, -198), (48, -156), (76, -70), (82, 30)) * [side, 1], thread)
        garment.paint(ellipse(42 * side, -132, 4.5, 4.5), thread)
        garment.paint(ellipse(42 * side, -132, 2.5, 2.5), colour("2d0b0c"), 1)
    garment.panel(ellipse(0, -201, 11, 7), cloth, rise=5, edge=3)
    patch = Fabric(colour("f1ece0"), crease=0, grain=0.05)
    garment.panel(ellipse(0, -68, 43, 39), patch, rise=1.2, edge=2, inherit=1)
    garment.paint(ellipse(0, -68, 36, 32), colour("23365f"))
    rays = np.arange(10) * np.pi / 5
    star = np.stack([np.sin(rays), -np.cos(rays)], axis=1) * np.array([[26], [10.5]] * 5)
    garment.paint(shifted(star, 0, -66), colour("f1ece0"))
    brim = symmetric(
        curve((0, 6), (80, 14), (145, 42)),
        curve((145, 42), (152, 96), (128, 160), (74, 196), (0, 204)),
    )
    garment.panel(brim, replace(cloth, crease=0.05, relief=bent), rise=4, edge=4, cast=0.6)
    for inset in range(8, 88, 12):
        f = 1 - 0.0032 * inset
        row = curve((0, 204 - inset), (74 * f, 196 - inset), (126 * f, 160 - 0.9 * inset), (148 * f, 100 - 0.5 * inset))
        garment.stitch(join(mirrored(row), row), thread)
    return photograph(garment, sheet(garment.rng, colour("cfd3d4"), 1.2), lift=12)


def shoes() -> Image.Image:
    """A pair of sneakers, seen from above, on a wooden floor."""
    garment = Garment(110, wobble=0.5)
    rubber = Fabric(colour("f0eee8"), crease=0, grain=0.02, gloss=0.1)
    upper = Fabric(colour("3b4f63"), crease=0.3, grain=0.08)
    dark = Fabric(colour("1d2127"), crease=0.3)
    lace = Fabric(colour("f4f2ec"), relief=ribs(3, 0.4), crease=0, grain=0.04)
    for side in (-1, 1):

        def foot(*points: Point, side: int = side) -> Points:
            return shifted(curve(*points, points[0]), 92, 0) * [side, 1]

        garment.panel(
            foot(
                (0, -196),
                (44, -182),
                (58, -120),
                (56, -20),
                (72, 80),
                (64, 160),
                (12, 200),
                (-40, 178),
                (-60, 100),
                (-52, -10),
                (-56, -120),
                (-42, -182),
            ),
            rubber,
            rise=14,
            edge=7,
        )
        garment.panel(
            foot(
                (0, -186),
                (36, -172),
                (49, -118),
                (47, -20),
                (62, 80),
                (54, 150),
                (12, 186),
                (-32, 166),
                (-50, 98),
                (-43, -10),
                (-47, -118),
                (-34, -172),
            ),
            upper,
            rise=36,
            edge=24,
            cast=0.5,
        )
        garment.panel(foot((12, 190), (58, 154), (63, 112), (10, 94), (-51, 112), (-35, 170)), rubber, rise=22, edge=16)
        garment.panel(
            foot((0, -172), (30, -158), (37, -112), (30, -54), (0, -44), (-30, -54), (-35, -112), (-28, -158)),
            replace(upper, base=colour("2d3d4e")),
            rise=12,
            edge=6,
        )
        garment.panel(
            foot((0, -160), (22, -148), (27, -110), (21, -66), (0, -58), (-21, -66), (-26, -110), (-21, -148)),
            dark,
            rise=1,
            edge=4,
            cast=0,
        )
        garment.panel(
            foot((0, -86), (25, -80), (26, 20), (22, 92), (0, 98), (-18, 92), (-22, 20), (-24, -80)),
            replace(upper, base=colour("4d6277")),
            rise=10,
            edge=9,
        )
        for y in np.linspace(-62, 78, 7).tolist():
            bar = shifted(curve((-27, y), (0, y - 5), (28, y + 3)), 92, 0) * [side, 1]
            garment.panel(ribbon(bar, 7.5), lace, rise=5, edge=3.2, angle=0, cast=0.5)
        bow = (
            curve((0, -64), (-30, -88), (-42, -62), (-6, -58)),
            curve((0, -64), (34, -82), (44, -54), (6, -56)),
            curve((0, -62), (-20, -34), (-34, -20)),
            curve((2, -62), (24, -36), (30, -16)),
        )
        for path in bow:
            garment.panel(ribbon(shifted(path, 92, 0) * [side, 1], 6), lace, rise=5, edge=2.6, cast=0.5)
    return photograph(garment, planks(garment.rng, colour("a97c52"), 80, 60), lift=10)


def hoodie() -> Image.Image:
    """A hooded sweatshirt on a wooden floor."""
    garment = Garment(121, tilt=1, size=1.06)
    cloth = Fabric(colour("4d5f77"), crease=1.1, grain=0.05)
    rib = replace(cloth, relief=ribs(5, 0.7), crease=0.2)
    deep = replace(cloth, base=colour("34415a"))
    torso = Torso(50, -134, 30, (122, -98), (126, 6), 134, (128, 190), 3)
    garment.pair(torso.sleeve((190, 140), 54, 16), cloth, rise=4, edge=8, angle=72)
    garment.pair(torso.end((191, 150), 44, 34), rib, rise=4, edge=6, angle=74)
    garment.panel(torso.front(), cloth, rise=4, edge=6)
    band = symmetric(curve((0, 186), (122, 184)), curve((122, 184), (116, 220)), curve((116, 220), (0, 224)))
    garment.panel(band, rib, rise=4, edge=5)
    hood = symmetric(
        curve((0, -262), (34, -254), (60, -210), (66, -160), (62, -124)), curve((62, -124), (28, -104), (0, -94))
    )
    garment.panel(hood, cloth, rise=8, edge=12, cast=0.4)
    opening = symmetric(curve((0, -226), (22, -216), (33, -178), (26, -138)), curve((26, -138), (12, -114), (0, -104)))
    garment.panel(opening, deep, rise=0.5, cast=0)
    garment.darken(opening, 0.35)
    garment.panel(ribbon(curve((0, -226), (1, -180), (-2, -104)), 3), deep, rise=1.5)
    rim = curve((0, -228), (24, -217), (36, -178), (28, -138), (4, -100))
    garment.pair(ribbon(rim, 12), replace(cloth, crease=0.3), rise=3, edge=4)
    pocket = symmetric(
        curve((0, 74), (50, 72)),
        curve((50, 72), (62, 98), (88, 130)),
        curve((88, 130), (90, 182)),
        curve((90, 182), (0, 186)),
    )
    garment.panel(pocket, replace(cloth, crease=0.5), rise=3, edge=3, inherit=0.6, cast=0.3)
    for side in (-1, 1):
        garment.stitch(curve((45, 74), (57, 100), (82, 132)) * [side, 1], colour("62748d"))
        cord = curve((12, -112), (18, -76), (12, -36), (20 + 6 * side, -4)) * [side, 1]
        garment.panel(
            ribbon(cord, 5.5), Fabric(colour("eceae5"), relief=ribs(3, 0.4), crease=0), rise=4, edge=2, cast=0.5
        )
    return photograph(garment, planks(garment.rng, colour("c39a68"), 64, 90))


def outwear() -> Image.Image:
    """A parka with a red yoke and a fur-trimmed hood on a wooden floor."""
    garment = Garment(132, tilt=-1, size=1.1)
    cotton = Fabric(colour("26282c"), crease=1.4, grain=0.02, gloss=0.15)
    slim = replace(cotton, crease=0.25)
    lining = Fabric(colour("8a6a4a"), relief=quilting(22, 3), crease=0.4)
    steel = Fabric(colour("8d8f90"), crease=0, gloss=0.3)
    torso = Torso(56, -160, 24, (132, -132), (128, -34), 130, (136, 226), 4)
    hood = symmetric(curve((0, -256), (56, -250), (92, -206), (92, -160), (68, -128)), curve((68, -128), (0, -112)))
    garment.panel(hood, cotton, rise=8, edge=12)
    opening = symmetric(curve((0, -232), (42, -226), (62, -184), (54, -140)), curve((54, -140), (0, -112)))
    garment.panel(opening, lining, rise=1, cast=0)
    garment.darken(opening, 0.35)
    rim = ribbon(curve((-66, -122), (-76, -190), (-48, -230), (0, -240), (48, -230), (76, -190), (66, -122)), 36)
    garment.panel(rim + garment.rng.normal(0, 2.6, rim.shape), fur(colour("b39a78")), rise=7, edge=7, cast=0.5)
    garment.pair(torso.sleeve((158, 170), 70, 26), cotton, rise=4, edge=8, angle=74)
    garment.pair(torso.end((158, 164), 69, 26), slim, rise=3, angle=74)
    garment.panel(torso.front(), cotton, rise=3, edge=6)
    neckline = torso.neckline()
    yoke = symmetric(
        neckline[len(neckline) // 2 :],
        curve((torso.neck, torso.top), torso.shoulder),
        torso.armhole(),
        curve(torso.armpit, (60, -30), (0, -34)),
    )
    garment.panel(yoke, replace(cotton, base=colour("b8384e")), rise=2, edge=2)
    stand = join(
        curve((3, -122), (6, -172), (32, -186), (58, -176)), curve((58, -176), (66, -150), (44, -134), (3, -122))
    )
    garment.pair(stand, replace(cotton, crease=0.6), rise=5, edge=6)
    garment.panel(ribbon(curve((8, -168), (8, 20), (6, 230)), 30), slim, rise=2.5, inherit=0.7, cast=0.45)
    garment.panel(ribbon(curve((-9, -160), (-9, 20), (-11, 228)), 3.5), replace(steel, relief=ribs(3, 0.8)), rise=1)
    for y in np.linspace(-140, 200, 7):
        garment.panel(ellipse(9, float(y), 5, 5), steel, rise=2, edge=2, cast=0.5)
    garment.seam(curve((-130, 66), (-60, 70), (0, 72), (60, 70), (130, 66)), 3, 2)
    cord = Fabric(colour("c8bfa6"), relief=ribs(3, 0.4), crease=0)
    for side in (-1, 1):
        garment.panel(ribbon(curve((26, 72), (34, 96), (28, 118)) * [side, 1], 4), cord, rise=3, edge=2, cast=0.5)
        pocket = join(curve((42, 130), (114, 130)), curve((114, 130), (114, 188)), curve((114, 188), (42, 188)))
        garment.panel(pocket * [side, 1], slim, rise=2.5, inherit=0.7, cast=0.4)
        flap = join(curve((40, 125), (116, 125)), curve((116, 125), (116, 146), (78, 152), (40, 146)))
        garment.panel(flap * [side, 1], slim, rise=3, inherit=0.6, cast=0.5)
        garment.panel(ellipse(side * 78, 144, 4, 4), steel, rise=2, edge=2, cast=0.5)
    for path in (torso.bottom()[::-1], mirrored(torso.bottom())):
        garment.hem(path, 9, colour("3a3d43"))
    return photograph(garment, planks(garment.rng, colour("c8b291"), 90, 90), lift=8)


def blazer() -> Image.Image:
    """A blazer on a hanger in front of a wall."""
    garment = Garment(143, wobble=0.8)
    wool = Fabric(colour("33363f"), crease=0.55, grain=0.08)
    lining = Fabric(colour("5b5f6c"), crease=0.6, gloss=0.12)
    torso = Torso(46, -206, 160, (134, -178), (122, -86), 108, (124, 208), 2)
    hook = curve((0, -212), (0, -240), (14, -254), (8, -276), (-12, -274), (-15, -262))
    garment.panel(ribbon(hook, 4.5), Fabric(colour("b9bbbf"), crease=0, gloss=0.4), rise=3, edge=2)
    garment.panel(
        symmetric(curve((0, -214), (50, -208)), curve((50, -208), (60, 0)), curve((60, 0), (0, 20))), lining, rise=1
    )
    garment.panel(ribbon(curve((-44, -202), (0, -210), (44, -202)), 18), wool, rise=3, edge=4)
    garment.pair(torso.sleeve((168, 172), 60, 14), wool, rise=6, edge=10, angle=84)
    right = join(
        curve((46, -208), (24, -120), (-4, -6)),
        curve((-4, -6), (-10, 60), (-8, 150), (18, 212)),
        curve((18, 212), (70, 216), (124, 208)),
        torso.side()[::-1],
        torso.armhole()[::-1],
        curve((134, -178), (46, -208)),
    )
    lapel = join(
        curve((42, -214), (22, -120), (-2, -8)),
        curve((-2, -8), (52, -64), (84, -132)),
        curve((84, -132), (60, -144)),
        curve((60, -144), (84, -158)),
        curve((84, -158), (70, -190), (50, -214)),
        curve((50, -212), (42, -214)),
    )
    for side in (1, -1):
        garment.panel(right * [side, 1], wool, rise=3, edge=5)
        garment.seam(curve((70, -60), (64, 60), (66, 90)) * [side, 1], 1.6, 2)
        flap = join(curve((44, 92), (104, 88)), curve((104, 88), (106, 108)), curve((106, 108), (46, 113), (44, 92)))
        garment.panel(flap * [side, 1], replace(wool, crease=0.1), rise=2.5, edge=2.5, cast=0.5)
        garment.panel(lapel * [side, 1], replace(wool, crease=0.2), rise=4, edge=3.5, angle=70, cast=0.55)
        garment.seam(curve((60, -144), (38, -166), (34, -184)) * [side, 1], 2, 1.2)
    garment.panel(ribbon(curve((-92, -92), (-60, -98)), 10), replace(wool, crease=0.1), rise=2, edge=2)
    for y in (2, 56):
        garment.button(1, y, 7, colour("15161a"))
    return photograph(garment, wall(garment.rng, colour("cfcdc8")), lift=14)


def undershirt() -> Image.Image:
    """A tank top with bound edges on a bed."""
    garment = Garment(154, tilt=-1)
    cloth = Fabric(colour("d9dadb"), pattern=stripes(colour("e4e3df"), colour("2c3d63"), 22, 0.4), crease=0.7)
    binding = Fabric(colour("2c3d63"), crease=0.1)
    torso = Torso(52, -214, 84, (86, -212), (122, -92), 116, (122, 196))
    inside_back(garment, torso, replace(cloth, base=colour("c9cacb")), 36)
    garment.panel(
        ribbon(curve((-52, -214), (-30, -188), (0, -178), (30, -188), (52, -214)), 8), binding, rise=1.5, edge=2
    )
    garment.panel(torso.front(), cloth)
    garment.panel(ribbon(torso.neckline(), 10), binding, rise=2, edge=2.5, inherit=0.3)
    arm = curve((86, -212), (82, -170), (92, -118), (122, -92))
    garment.pair(ribbon(arm, 10), binding, rise=2, edge=2.5)
    garment.hem(join(mirrored(torso.bottom()[::-1]), torso.bottom()[::-1]), 9, colour("c4c4c4"))
    return photograph(garment, sheet(garment.rng, colour("b98f7a"), 0.9))


def body() -> Image.Image:
    """A baby's bodysuit on a carpet."""
    garment = Garment(165, tilt=1)
    cloth = Fabric(colour("f1e3c4"), crease=0.75)
    binding = Fabric(colour("e2a65e"), crease=0.1)
    torso = Torso(62, -190, 44, (132, -160), (116, -84), 116, (118, 70))
    inside_back(garment, torso, cloth, 20)
    garment.pair(torso.sleeve((176, -82), 74, 4), cloth, angle=55)
    outer, inner = torso.cuff((176, -82), 74)
    garment.pair(ribbon(curve(outer, inner), 8), binding, rise=2.5)
    neckline = torso.neckline()
    shape = symmetric(
        neckline[len(neckline) // 2 :],
        curve((62, -190), (132, -160)),
        torso.armhole(),
        torso.side(),
        curve((118, 70), (100, 120), (60, 160), (46, 206)),
        curve((46, 206), (0, 210)),
    )
    garment.panel(shape, cloth)
    leg = curve((118, 70), (100, 120), (60, 160), (46, 206))
    garment.pair(ribbon(leg, 9), binding, rise=2.5)
    garment.panel(ribbon(neckline, 9), binding, rise=2.2, edge=2.5, inherit=0.3)
    for side in (-1, 1):
        garment.panel(ribbon(curve((64, -190), (92, -150), (126, -128)) * [side, 1], 7), binding, rise=2, inherit=0.4)
    garment.stitch(curve((-44, 192), (44, 192)), colour("cbbb95"))
    for x in (-28, 0, 28):
        garment.button(x, 201, 4.5, colour("f6f3ea"))
    for x, y, r in ((0, -20, 26), (-24, -44, 11), (24, -44, 11)):
        garment.paint(ellipse(x, y, r, r), colour("a9744b"))
    for x in (-9, 9):
        garment.paint(ellipse(x, -24, 3, 3), colour("2a1d14"))
    garment.paint(ellipse(0, -12, 11, 8), colour("e8cfa8"))
    garment.paint(ellipse(0, -15, 4, 3), colour("2a1d14"))
    return photograph(garment, carpet(garment.rng, colour("8d97a3")))


PICTURES: dict[str, Callable[[], Image.Image]] = {
    "blazer": blazer,
    "body": body,
    "dress": dress,
    "hat": hat,
    "hoodie": hoodie,
    "longsleeve": longsleeve,
    "outwear": outwear,
    "pants": pants,
    "polo": polo,
    "shirt": shirt,
    "shoes": shoes,
    "shorts": shorts,
    "skirt": skirt,
    "t-shirt": t_shirt,
    "undershirt": undershirt,
}
"""The pictures by stem. ``taxonomy.canonical_label`` resolves each stem to its class."""


def contact_sheet(pictures: list[Image.Image], columns: int = 5, width: int = 1200, gap: int = 8) -> Image.Image:
    """Return the pictures side by side."""
    across = (width - (columns + 1) * gap) // columns
    down = across * HEIGHT // WIDTH
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (width, rows * (down + gap) + gap), "white")
    for i, picture in enumerate(pictures):
        small = picture.resize((across, down), Image.Resampling.LANCZOS)
        page.paste(small, (gap + i % columns * (across + gap), gap + i // columns * (down + gap)))
    return page


def main() -> None:
    """Draw all pictures, or those named."""
    parser = argparse.ArgumentParser(description="Draw the example pictures.")
    parser.add_argument(
        "out_dir", nargs="?", type=Path, default=Path(__file__).parent, help="default: beside this file"
    )
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="also write all pictures on one contact sheet")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=list(PICTURES), help="draw these only")
    arguments = parser.parse_args()
    arguments.out_dir.mkdir(parents=True, exist_ok=True)
    pictures = []
    for stem in arguments.only:
        picture = PICTURES[stem]()
        picture.save(arguments.out_dir / f"{stem}.jpg", quality=82, optimize=True)
        pictures.append(picture)
    if arguments.sheet:
        contact_sheet(pictures).save(arguments.sheet, quality=80, optimize=True)


if __name__ == "__main__":
    main()
