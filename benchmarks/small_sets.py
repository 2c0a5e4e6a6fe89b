"""Small sets that may be passed on, for the runs of docs/stylegan2_advice.md.

Pictures of Noto Color Emoji (Debian's fonts-noto-color-emoji; SIL Open Font License 1.1), drawn on
a pale ground of random colour: heads of people in six tones of skin, animals, and smileys.
people.csv has the tone of each head, for `scripts/stargan2.py --mode eval --groups`.

    python -m benchmarks.small_sets --output data/small_sets
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from paddle_sam.core.images import save_image

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
FONT_SIZE = 109  # the only size of its bitmaps
SIDE = 144
SKINS = ("", *(chr(0x1F3FB + tone) for tone in range(5)))
HAIRS = ("", *("\u200d" + chr(0x1F9B0 + kind) for kind in range(4)))


def people() -> list[str]:
    """Heads only: children, adults of four kinds of hair, old people, in six tones of skin."""
    plain = "👶👦👧🧒👱🧓👴👵🧕👲👳👮👷💂🕵🤴👸🤵👰"
    adults = [who + skin + hair for who in "👨👩🧑" for skin in SKINS for hair in HAIRS]
    jobs = [
        who + skin + "\u200d" + job
        for who in "👨👩🧑"
        for skin in SKINS
        for job in ("🎓", "🍳", "🎤", "🎨", "🚀", "🚒", "🌾")
    ]
    return [who + skin for who in plain for skin in SKINS] + adults + jobs


def tone(text: str) -> str:
    """Return the tone of skin of one of `people`: yellow, or 1 (light) to 5 (dark)."""
    return next(
        (str(number) for number, skin in enumerate(SKINS) if skin and skin in text), "yellow"
    )


def animals() -> list[str]:
    codes = [*range(0x1F400, 0x1F440), *range(0x1F980, 0x1F9AF), *range(0x1F9A0, 0x1F9AB)]
    return [chr(code) for code in dict.fromkeys(codes)]


def smileys() -> list[str]:
    codes = [*range(0x1F600, 0x1F645), *range(0x1F910, 0x1F918), *range(0x1F920, 0x1F930)]
    codes += [*range(0x1F970, 0x1F97B), 0x1F9D0]
    return [chr(code) for code in codes]


def draw(text: str, font: ImageFont.FreeTypeFont, random: np.random.Generator) -> np.ndarray | None:
    """Return one glyph, RGB uint8 [SIDE, SIDE, 3]; None where the font has no single glyph."""
    if not 0 < font.getlength(text) < 1.5 * FONT_SIZE:
        return None
    ground = tuple(int(level) for level in random.integers(190, 256, 3))
    image = Image.new("RGB", (SIDE, SIDE), ground)
    canvas = ImageDraw.Draw(image)
    canvas.text((SIDE / 2, SIDE / 2), text, font=font, anchor="mm", embedded_color=True)
    pixels = np.asarray(image)
    return pixels if pixels.std() > 8 else None


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="data/small_sets")
    parser.add_argument("--font", default=FONT)
    args = parser.parse_args(argv)
    font = ImageFont.truetype(args.font, FONT_SIZE)
    for kind in (people, animals, smileys):
        random = np.random.default_rng(0)
        pictures = [(text, draw(text, font, random)) for text in kind()]
        drawn = [(text, picture) for text, picture in pictures if picture is not None]
        for number, (_, picture) in enumerate(drawn):
            save_image(Path(args.output) / kind.__name__ / f"{number:03}.png", picture)
        if kind is people:
            rows = [
                f"people/{number:03}.png,{tone(text)}" for number, (text, _) in enumerate(drawn)
            ]
            (Path(args.output) / "people.csv").write_text("\n".join(rows) + "\n")
        print(f"{args.output}/{kind.__name__}: {len(drawn)} pictures")


if __name__ == "__main__":
    main()
