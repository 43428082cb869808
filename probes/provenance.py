"""What an image file says about how it was made: our own parameters, and those of the AUTOMATIC1111 web UI and of ComfyUI."""

import json
import re
from pathlib import Path

from PIL import Image

CHUNK = "guide"
USER_COMMENT, EXIF = 0x9286, 0x8769
DEEP, LONG = 50, 2_000_000  # links that are followed, letters that are read
TEXTS = ("text", "text_g", "text_l", "string", "positive", "conditioning")  # inputs of ComfyUI's nodes that lead to words
WORDS = ("string", "text", "value", "prompt")  # how an input begins that may hold words itself
MODELS = ("ckpt_name", "unet_name", "model_name")
UNREADABLE = (OSError, ValueError, SyntaxError, RecursionError, KeyError, AttributeError, Image.DecompressionBombError)


def parameters(path: str | Path) -> dict | None:
    """The parameters in a PNG's "guide" text chunk, or None where there are none that can be read."""
    try:
        with Image.open(path) as image:
            return own(image)
    except UNREADABLE:
        return None


def own(image: Image.Image) -> dict | None:
    """The parameters that `guide` wrote into an opened PNG, or None."""
    try:
        found = json.loads(image.text[CHUNK]) if image.format == "PNG" and CHUNK in image.text else None
    except UNREADABLE:
        return None
    return found if isinstance(found, dict) else None


def said(image: Image.Image) -> dict:
    """What an opened image says of itself: `subject` (the prompt), `seed`, `styles`, `variant` and what else `guide` wrote; {} if nothing.

    Our own chunk comes first; then A1111's `parameters` text (a PNG chunk, or the EXIF user comment of a JPEG or WebP), then ComfyUI's
    `prompt` and `workflow` graphs. Whatever is damaged counts as not said.
    """
    if (found := own(image)) is not None:
        return found
    texts = {key: value for key, value in image.info.items() if isinstance(value, str) and len(value) <= LONG}
    readers = (("parameters", a1111), ("prompt", _graph), ("workflow", _workflow))
    for chunk, reader in readers:
        try:
            if chunk in texts and (found := reader(texts[chunk])):
                return found
        except (*UNREADABLE, TypeError, IndexError):
            continue
    return a1111(_comment(image))


def a1111(text: str) -> dict:
    """Prompt and seed of the web UI's text: the prompt, a line `Negative prompt: ...`, a last line `Steps: 20, Sampler: ..., Seed: 7`."""
    lines = text.strip().split("\n")
    settings = lines.pop() if re.match(r"\s*Steps: \d+", lines[-1]) else ""
    negative = next((k for k, line in enumerate(lines) if line.startswith("Negative prompt:")), len(lines))
    if not settings and negative == len(lines):
        return {}  # any text may be called "parameters"
    seed, model = re.search(r"\bSeed: (\d+)", settings), re.search(r"\bModel: ([^,]+)", settings)
    found = {"tool": "a1111", "subject": "\n".join(lines[:negative]).strip()} | ({"seed": int(seed[1])} if seed else {})
    return found | ({"model": model[1].strip()} if model else {})


def _comment(image: Image.Image) -> str:
    """The EXIF user comment: eight letters name its encoding."""
    try:
        comment = image.getexif().get_ifd(EXIF).get(USER_COMMENT, b"")
        if isinstance(comment, str):
            return comment
        utf16 = "utf-16-be" if comment[8:9] == b"\0" else "utf-16-le"
        return comment[8:].decode(utf16 if comment[:7] == b"UNICODE" else "utf-8", "replace").strip("\0")
    except (*UNREADABLE, TypeError):
        return ""


def _graph(text: str) -> dict:
    """ComfyUI's executed graph: from the sampler's `positive` input, or a guider's `conditioning`, along the links to a text."""
    nodes = json.loads(text)
    inputs = [node["inputs"] for node in nodes.values() if isinstance(node.get("inputs"), dict)]
    guided = [node["inputs"] for node in nodes.values() if str(node.get("class_type", "")).endswith("Guider")]
    asked = [held["positive"] for held in inputs if "positive" in held]
    asked += [held["conditioning"] for held in guided if "conditioning" in held]
    words = next(filter(None, (_text(nodes, link) for link in asked)), "")
    if not words:
        return {}
    seeds = (_whole(nodes, held[key]) for held in inputs for key in ("seed", "noise_seed") if key in held)
    seed = next((value for value in seeds if value is not None), None)
    model = next((held[key] for held in inputs for key in MODELS if isinstance(held.get(key), str)), "")
    found = {"tool": "comfyui", "subject": words} | ({"seed": seed} if seed is not None else {})
    return found | ({"model": re.split(r"[\\/]", model)[-1].removesuffix(".safetensors").removesuffix(".ckpt")} if model else {})


def _whole(nodes: dict, link: object) -> int | None:
    """A whole number, or the one that a link leads to."""
    if isinstance(link, list) and link and str(link[0]) in nodes:
        link = next((value for value in nodes[str(link[0])].get("inputs", {}).values() if type(value) is int), None)
    return link if type(link) is int else None


def _text(nodes: dict, link: object, depth: int = 0) -> str:
    """The first words behind a link: by the inputs that usually lead to some, then by any other link or, past the first node, any text."""
    if isinstance(link, str):
        return link.strip()
    if depth > DEEP or not isinstance(link, list) or not link or str(link[0]) not in nodes:
        return ""
    inputs = nodes[str(link[0])].get("inputs", {})
    usual = [inputs[key] for key in TEXTS if key in inputs]
    others = [value for key, value in inputs.items() if key not in TEXTS and (isinstance(value, list) or key.startswith(WORDS))]
    return next(filter(None, (_text(nodes, value, depth + 1) for value in usual or others)), "")


def _workflow(text: str) -> dict:
    """ComfyUI's editor graph, for files that hold nothing else: the text widget behind the sampler's `positive` slot."""
    graph = json.loads(text)
    nodes, links = {node["id"]: node for node in graph["nodes"]}, {link[0]: link[1] for link in graph["links"]}
    for node in nodes.values():
        slots = {slot["name"]: slot.get("link") for slot in node.get("inputs") or ()}
        source, seen = slots.get("positive"), 0
        while source in links and seen < DEEP:
            at, seen = nodes[links[source]], seen + 1
            if words := next((value for value in at.get("widgets_values") or () if isinstance(value, str)), ""):
                return {"tool": "comfyui", "subject": words.strip()}
            source = next((slot.get("link") for slot in at.get("inputs") or () if slot.get("type") == "CONDITIONING"), None)
    return {}
