"""PNG files that say how they were made: A1111-style parameters, our own JSON, and an XMP packet (IPTC DigitalSourceType)."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from PIL import Image, PngImagePlugin

from probes.atomic import replacing
from probes.plain import plain
from probes.provenance import CHUNK, parameters

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SOURCE_TYPE", "a1111", "described", "parameters", "save", "xmp"]

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_KEYWORD = "XML:com.adobe.xmp"
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
A1111_KEYS = {
    "steps": "Steps", "sampler": "Sampler", "guidance_scale": "CFG scale", "guidance_rescale": "CFG rescale", "seed": "Seed",
    "size": "Size", "model": "Model",
    "strategy": "Strategy", "strength": "Strength", "styles": "Styles", "avoid": "Avoid", "period": "Period",
}  # fmt: skip
PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/">
   <Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>{tool}</xmp:CreatorTool>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""


def _clean(text: object) -> str:
    """The text without what neither XML nor a PNG chunk can hold (control characters, lone surrogates)."""
    return NOT_XML.sub("", str(text))


def xmp(description: str, tool: str = "guide") -> str:
    """An XMP packet that marks the image as made by a trained model."""
    return PACKET.format(source=SOURCE_TYPE, tool=escape(_clean(tool)), description=escape(_clean(description)))


def a1111(parameters: dict) -> str:
    """The "parameters" text as the AUTOMATIC1111 web UI writes it: prompt, negative prompt, one line of settings."""

    def quoted(value: object) -> str:
        if isinstance(value, list | tuple):  # styles with weights, avoided styles, a span of years
            value = ", ".join(f"{entry[0]}:{entry[1]:g}" if isinstance(entry, list | tuple) else str(entry) for entry in value)
        text = _clean(value)
        return json.dumps(text, ensure_ascii=False) if re.search(r"[,:\n]", text) else text

    lines = [_clean(parameters.get("prompt", ""))]
    if parameters.get("negative_prompt"):
        lines.append(f"Negative prompt: {_clean(parameters['negative_prompt'])}")
    known = [(shown, parameters[key]) for key, shown in A1111_KEYS.items() if parameters.get(key) not in (None, "", (), [])]
    return "\n".join([*lines, ", ".join(f"{shown}: {quoted(value)}" for shown, value in known)])


def described(
    brief, settings, *, seed: int, variant: str, strategy: str, strength: float, model: str, encoder: str, sampler: str = "",
    **costs: float,
) -> dict:
    """What a picture says of itself: a guide.brief.Brief, the pipeline's settings, seed, strategy, sampler in words; `costs` per picture
    may follow."""
    costs |= {"guidance_rescale": settings.guidance_rescale} if getattr(settings, "guidance_rescale", 0) else {}
    return plain({
        "tool": "guide", "prompt": brief.text(), "negative_prompt": brief.negative(), "subject": brief.prompt, "styles": brief.styles,
        "avoid": brief.avoid, "period": brief.period, "scene": brief.scene, "origin": brief.origin, "seed": seed, "variant": variant,
        "strategy": strategy, "strength": strength,
        "steps": settings.steps, "sampler": sampler, "guidance_scale": settings.guidance_scale,
        "size": f"{settings.width}x{settings.height}", "model": model, "encoder": encoder, **costs,
    })  # fmt: skip


def save(image: "Tensor | Image.Image", path: str | Path, parameters: dict) -> None:
    """Write one image ((3, h, w) in [0, 1], or a Pillow image) with its parameters; whole or not at all.

    `parameters` must be JSON-able; the keys of `A1111_KEYS`, `prompt` and `negative_prompt` also go into the A1111 line.
    """
    if not isinstance(image, Image.Image):
        from probes.image import to_pil

        image = to_pil(image)
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", a1111(parameters))
    chunks.add_text(CHUNK, json.dumps(parameters, allow_nan=False))
    chunks.add_itxt(XMP_KEYWORD, xmp(parameters.get("prompt", ""), parameters.get("tool", "guide")))
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)
