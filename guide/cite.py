"""BibTeX of what a run used: its strategies, the encoder, the model, classifier-free guidance, and this project."""
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from guide.record import Record
from guide.strategies import presets

UNREAD = "source not read"
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")


@dataclass(frozen=True)
class Entry:
    """A source. Title and authors are empty where they could not be looked up; `others`: there are more authors than those named;
    `read`: what is implemented here was checked against the paper or its authors' code."""

    key: str
    title: str
    authors: tuple[str, ...]
    year: int
    read: bool = True
    others: bool = False
    venue: str = ""


# By arXiv id, or by the key of the preset where there is none. Authors as the arXiv listing or the proceedings name them.
SOURCES: dict[str, Entry] = {
    "2209.14687": Entry(
        "chung2022dps", "Diffusion Posterior Sampling for General Noisy Inverse Problems",
        ("Hyungjin Chung", "Jeongsol Kim", "Michael T. McCann", "Marc L. Klasky", "Jong Chul Ye"), 2022),
    "2311.16424": Entry(
        "he2023mpgd", "Manifold Preserving Guided Diffusion",
        ("Yutong He", "Naoki Murata", "Chieh-Hsin Lai", "Yuhta Takida", "Toshimitsu Uesaka", "Dongjun Kim", "Wei-Hsiang Liao",
         "Yuki Mitsufuji", "J. Zico Kolter", "Ruslan Salakhutdinov", "Stefano Ermon"), 2023),
    "2303.09833": Entry(
        "yu2023freedom", "FreeDoM: Training-Free Energy-Guided Conditional Diffusion Model",
        ("Jiwen Yu", "Yinhuai Wang", "Chen Zhao", "Bernard Ghanem", "Jian Zhang"), 2023),
    "2302.07121": Entry(
        "bansal2023universal", "Universal Guidance for Diffusion Models",
        ("Arpit Bansal", "Hong-Min Chu", "Avi Schwarzschild", "Soumyadip Sengupta", "Micah Goldblum", "Jonas Geiping", "Tom Goldstein"),
        2023, read=False),
    "2409.15761": Entry(
        "ye2024tfg", "TFG: Unified Training-Free Guidance for Diffusion Models",
        ("Haotian Ye", "Haowei Lin", "Jiaqi Han", "Minkai Xu", "Sheng Liu", "Yitao Liang", "Jianzhu Ma", "James Zou", "Stefano Ermon"),
        2024),
    "2402.03201": Entry(
        "yang2024dsg", "Guidance with Spherical Gaussian Constraint for Conditional Diffusion",
        ("Lingxiao Yang", "Shutong Ding", "Yifan Cai", "Jingyi Yu", "Jingya Wang", "Ye Shi"), 2024),
    "lgd-mc": Entry(
        "song2023lgd", "Loss-Guided Diffusion Models for Plug-and-Play Controllable Generation",
        ("Jiaming Song", "Qinsheng Zhang", "Hongxu Yin", "Morteza Mardani", "Ming-Yu Liu", "Jan Kautz", "Yongxin Chen", "Arash Vahdat"),
        2023, read=False, venue="International Conference on Machine Learning"),
    "2410.02416": Entry(
        "sadat2024apg", "Eliminating Oversaturation and Artifacts of High Guidance Scales in Diffusion Models",
        ("Seyedmorteza Sadat", "Otmar Hilliges", "Romann M. Weber"), 2024, read=False),
    "2404.07724": Entry(
        "kynkaanniemi2024interval", "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models",
        ("Tuomas Kynkäänniemi",), 2024, read=False, others=True),
    "2606.18066": Entry("noisetilt2026", "", (), 2026, read=False),
    "2606.02884": Entry("damping2026", "", (), 2026, read=False),
    "2501.06848": Entry(
        "singhal2025fk", "A General Framework for Inference-time Scaling and Steering of Diffusion Models",
        ("Raghav Singhal", "Zachary Horvitz", "Ryan Teehan", "Mengye Ren", "Zhou Yu", "Kathleen McKeown", "Rajesh Ranganath"), 2025),
    "2501.05803": Entry(
        "kim2025das", "Test-time Alignment of Diffusion Models without Reward Over-optimization",
        ("Sunwoo Kim", "Minkyu Kim", "Dongmin Park"), 2025),
    "2406.04312": Entry(
        "eyring2024reno", "ReNO: Enhancing One-step Text-to-Image Models through Reward-based Noise Optimization",
        ("Luca Eyring", "Shyamgopal Karthik", "Karsten Roth", "Alexey Dosovitskiy", "Zeynep Akata"), 2024),
    "2103.00020": Entry(
        "radford2021clip", "Learning Transferable Visual Models From Natural Language Supervision",
        ("Alec Radford", "Jong Wook Kim", "Chris Hallacy", "Aditya Ramesh", "Gabriel Goh", "Sandhini Agarwal", "Girish Sastry",
         "Amanda Askell", "Pamela Mishkin", "Jack Clark"), 2021, read=False, others=True),
    "2207.12598": Entry("ho2022cfg", "Classifier-Free Diffusion Guidance", ("Jonathan Ho", "Tim Salimans"), 2022, read=False),
    "2112.10752": Entry(
        "rombach2021ldm", "High-Resolution Image Synthesis with Latent Diffusion Models",
        ("Robin Rombach", "Andreas Blattmann", "Dominik Lorenz", "Patrick Esser", "Björn Ommer"), 2021, read=False),
    "2307.01952": Entry(
        "podell2023sdxl", "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis",
        ("Dustin Podell", "Zion English", "Kyle Lacey", "Andreas Blattmann", "Tim Dockhorn", "Jonas Müller", "Joe Penna",
         "Robin Rombach"), 2023, read=False),
    "2403.03206": Entry(
        "esser2024sd3", "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis",
        ("Patrick Esser", "Sumith Kulal", "Andreas Blattmann", "Rahim Entezari", "Jonas Müller", "Harry Saini", "Yam Levi",
         "Dominik Lorenz", "Axel Sauer", "Frederic Boesel"), 2024, read=False, others=True),
    "2311.17042": Entry(
        "sauer2023add", "Adversarial Diffusion Distillation",
        ("Axel Sauer", "Dominik Lorenz", "Andreas Blattmann", "Robin Rombach"), 2023, read=False),
    "multipliers": Entry("platt1988mdmm", "Constrained Differential Optimization", ("Platt", "Barr"), 1988, read=False),
    "2404.01292": Entry(
        "somepalli2024csd", "Measuring Style Similarity in Diffusion Models",
        ("Gowthami Somepalli", "Anubhav Gupta", "Kamal Gupta", "Shramay Palta", "Micah Goldblum", "Jonas Geiping", "Abhinav Shrivastava",
         "Tom Goldstein"), 2024, read=False),
}

# How references are compared, and content: what each way comes from.
BY = {"moments": ("1703.06868",), "gram": ("1508.06576",), "style": ("2404.01292",), "embedding": ()}
CONTENT = {"directional": ("2108.00946",)}

# By the beginning of a model's name; the embedded model is this project's own and a latent diffusion model.
MODELS = {"embedded": ("2112.10752",), "stable-diffusion": ("2112.10752",), "sd-turbo": ("2311.17042",),
          "sdxl-turbo": ("2307.01952", "2311.17042"), "sdxl": ("2307.01952",), "sd3": ("2403.03206",)}


def bibtex(record: Record) -> str:
    """The entries of everything that a run of `guide generate` or `guide compare` used, each once; a note marks sources not read.

    A model that is not listed here is left out: its card names what to cite.
    """
    sources = dict.fromkeys(_used(record))
    return "\n".join([_project(record), *map(entry, sources)])


def entry(source: str) -> str:
    """The BibTeX of an arXiv id, or of a key of SOURCES; of an id that is not listed, what is known of it."""
    known = SOURCES.get(source)
    lines = {}
    if known:
        lines = {"title": known.title and f"{{{known.title}}}", "author": " and ".join((*known.authors, *["others"] * known.others))}
    if re.fullmatch(r"\d{4}\.\d{5}", source):
        lines |= {"eprint": source, "archivePrefix": "arXiv", "url": f"https://arxiv.org/abs/{source}"}
    if known:
        lines |= {"booktitle": known.venue, "year": str(known.year)}
    lines["note"] = "" if known and known.read else UNREAD
    kind, key = ("inproceedings" if known and known.venue else "misc"), known.key if known else f"arxiv{source}"
    return _formatted(kind, key, lines)


def _formatted(kind: str, key: str, lines: dict[str, str]) -> str:
    body = ",\n".join(f"  {name} = {{{value}}}" for name, value in lines.items() if value)
    return f"@{kind}{{{key},\n{body}\n}}\n"


def _used(record: Record) -> Iterator[str]:
    request: dict[str, Any] = record.request
    if record.kind in ("transfer", "invert") and request.get("engine", "pixels") == "pixels":
        yield from _painted(record.kind, request)
        return
    chosen = request.get("strategies") or {request.get("strategy", ""): request.get("preset")}
    for name, settings in chosen.items():
        preset = next((preset for key, preset in presets().items() if name == key or name in preset.names), None)
        if preset is not None:
            yield from ARXIV.findall(preset.paper) or ([preset.key] if preset.key in SOURCES else [])
        if isinstance(settings, dict) and settings.get("damping"):
            yield "2606.02884"
    goals = request.get("goals") or {}
    yield from ("multipliers",) if goals.get("constraints") else ()
    yield from BY[goals.get("by", "moments")] if goals.get("references") else ()
    yield from CONTENT.get(goals.get("content", ""), ())
    yield "2103.00020"
    yield from next((ids for start, ids in sorted(MODELS.items(), reverse=True) if str(request.get("model", "")).startswith(start)), ())
    if ((request.get("settings") or {}).get("guidance_scale") or 0) > 1:
        yield "2207.12598"


def _project(record: Record) -> str:
    version = record.versions.get("clip-guided-generation", "")
    return _formatted("software", "clip_guided_generation", {"title": "{clip-guided-generation}", "version": version,
                                                             "note": f"commit {record.git['commit']}" if record.git else ""})


def _painted(kind: str, request: dict[str, Any]) -> Iterator[str]:
    """Of runs on pixels: what brushwork is compared by, the multipliers, the encoder; of a flip, how it is sought."""
    if kind == "invert":
        yield from ("1811.09600",) if request.get("inputs") else ()
    else:
        yield "1508.06576" if request.get("statistics") == "gram" else "1703.06868"
        yield from ("multipliers",) if request.get("keep") else ()
        yield from ("2112.00374",) if (request.get("brief") or {}).get("prompt") else ()
        yield from ("1606.05897",) if request.get("preserve_color") else ()
    yield "2103.00020"
