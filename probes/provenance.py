"""What an image file says about how it was made: the parameters that `guide` writes into its PNGs."""

import json
from pathlib import Path

from PIL import Image

CHUNK = "guide"


def parameters(path: str | Path) -> dict | None:
    """The parameters in a PNG's "guide" text chunk, or None where there are none that can be read."""
    try:
        with Image.open(path) as image:
            found = json.loads(image.text[CHUNK]) if image.format == "PNG" and CHUNK in image.text else None
    except (OSError, ValueError, SyntaxError, RecursionError, Image.DecompressionBombError):
        return None
    return found if isinstance(found, dict) else None
