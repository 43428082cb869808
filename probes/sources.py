"""Where an encoder's files are: beside this module, in a folder, or on a hub."""
import json
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

from probes import hub
from probes.config import nearest, offer
from probes.errors import UserError
from probes.paths import typed

CONFIG = "open_clip_config.json"
# In the order in which open_clip prefers them.
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
           "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
FAILURES = (OSError, ValueError, RuntimeError, KeyError, TypeError, AssertionError, AttributeError)


@dataclass(frozen=True)
class Source:
    """A model whose weights lie on this machine in `checkpoint`; `model` is its name for open_clip, `data` what it learned from."""

    name: str
    model: str
    checkpoint: Path
    tag: str | None = None
    data: str = ""

    def open(self, precision: str, device: str):
        """open_clip's model, and its tokenizer or None where a folder has none. Weights come from safetensors or `weights_only` pickles."""
        import open_clip
        from safetensors import SafetensorError
        # A built-in configuration does not know that OpenAI's weights want QuickGELU: open_clip only warns, and the embeddings are off.
        activation = {"quick_gelu": bool(open_clip.get_pretrained_cfg(self.model, self.tag).get("quick_gelu", False))} if self.tag else {}
        try:
            clip = open_clip.create_model(self.model, self.tag, precision=precision, device=device, require_pretrained=True, **activation)
        except UnpicklingError as error:
            raise UserError(f"the weights {self.checkpoint} hold more than tensors and are not loaded; use safetensors.") from error
        except (*FAILURES, SafetensorError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".: ")
            raise UserError(f"the encoder {self.name} is not a whole model in open_clip's format: {reason}.") from error
        try:
            return clip, open_clip.get_tokenizer(self.model)
        except FAILURES as error:
            if self.model.startswith("local-dir:"):
                return clip, None
            wanted = (open_clip.get_model_config(self.model) or {}).get("text_cfg", {}).get("hf_tokenizer_name") or self.model
            files = "tokenizer.json tokenizer_config.json"
            raise hub.unreachable(f"the tokenizer of {self.name}", wanted.removeprefix("hf-hub:"), files, error) from error


def locate(source: str, embedded: Path) -> Source:
    """The encoder that `source` means, its weights fetched where they are on a hub."""
    if source == "embedded":
        if not (embedded / CONFIG).is_file():
            raise UserError(f"the embedded encoder is missing ({embedded / CONFIG}); reinstall the package or name another encoder.")
        return _folder(embedded, "embedded", "guide")
    folder = typed(source.removeprefix("local-dir:"))
    if folder.is_dir():
        return _folder(folder, source)
    if source.startswith("hf-hub:"):
        return _repository(source)
    model, _, tag = source.rpartition(":")
    return _named(model or tag, tag if model else "", source)


def _folder(folder: Path, name: str, data: str = "") -> Source:
    if not (folder / CONFIG).is_file():
        raise UserError(f"the folder {folder} is no encoder in open_clip's format: it lacks {CONFIG}.")
    present = [path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin", ".pth")]
    present.sort(key=lambda path: (path.suffix != ".safetensors", path.name))
    preferred = [folder / weights for weights in WEIGHTS if (folder / weights) in present]
    if not present:
        raise UserError(f"the folder {folder} holds no weights; put {WEIGHTS[0]} beside {CONFIG}.")
    card = folder / "card.json"
    if card.is_file():
        try:
            lineage = json.loads(card.read_text(encoding="utf-8")).get("lineage") or {}
            data = str(lineage.get("data", data))
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(f"the card {card} cannot be read ({error}); mend it, or take it away.") from None
    return Source(name, f"local-dir:{folder}", (preferred or present)[0], data=data)


def _repository(source: str) -> Source:
    from open_clip.pretrained import download_pretrained_from_hf
    repository, files = source.removeprefix("hf-hub:"), f"{CONFIG} {WEIGHTS[0]} tokenizer.json"
    if repository.count("/") != 1:
        raise UserError(f"an encoder on the hub is named hf-hub:owner/name, not {source!r}.")
    what = f"the encoder {source}"
    hub.ensure(what, repository, files)
    try:
        download_pretrained_from_hf(repository, CONFIG)
        return Source(source, source, Path(download_pretrained_from_hf(repository)))
    except FAILURES as error:
        raise hub.unreachable(what, repository, files, error) from error


def _named(model: str, tag: str, source: str) -> Source:
    import open_clip
    known, tags = open_clip.list_models(), open_clip.list_pretrained_tags_by_model(model)
    if model not in known:
        raise UserError(f"there is no encoder {source!r}, neither a folder nor a model{offer(['embedded', *nearest(model, known)])}.")
    if not tags:
        raise UserError(f"the encoder {model} has no published weights; choose another one.")
    if tag not in tags:
        close = nearest(tag, tags) if tag else []
        raise UserError(f"the encoder {model} has no weights {tag!r}{offer(close) if close else offer(tags, complete=True)}." if tag else
                        f"the encoder {model} needs the name of its weights, as in {model}:{tags[0]}{offer(tags, complete=True)}.")
    config, what = open_clip.get_pretrained_cfg(model, tag), f"the encoder {source}"
    repository, _, file = config.get("hf_hub", "").rpartition("/")
    files = " ".join(dict.fromkeys((WEIGHTS[0], file or WEIGHTS[0])))
    try:
        if repository:
            hub.ensure(what, repository, files)
        return Source(source, model, Path(open_clip.download_pretrained(config)), tag, tag.split("_")[0])
    except FAILURES as error:
        if repository:
            raise hub.unreachable(what, repository, files, error) from error
        raise UserError(f"{what} is not on this machine and cannot be fetched: where there is a network download {config['url']}, "
                        "then put it into ~/.cache/clip here.") from error
