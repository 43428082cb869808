"""What `guide styles`, `models` and `judges` list: titles, rows of text, and sentences below. Each imports what it needs."""

Listing = tuple[tuple[str, ...], list[tuple[str, ...]], list[str]]


def styles() -> Listing:
    """The styles by their years, and which of them the embedded models learned."""
    from guide.brief import learned
    from probes.config import styles

    known = learned()
    rows = [(key, entry.names[1] if len(entry.names) > 1 else "", f"{entry.years[0]}-{entry.years[1]}", entry.region,
             "learned" if key in known else "") for key, entry in sorted(styles().items(), key=lambda item: (item[1].years, item[0]))]
    hub = "Styles that the embedded models did not learn need a hub model: see `guide models`."
    return ("style", "also called", "years", "region", "embedded"), rows, [hub]


def models() -> Listing:
    """The models in configs/models."""
    from guide.pipelines import models

    known = models()
    rows = [(key, m.source, str(m.size), str(m.steps), f"{m.guidance_scale:g}", m.licence) for key, m in known.items()]
    below = [f"{key}: {entry.about} Latents: {entry.latents}. Licence read: {entry.read}." for key, entry in known.items()]
    return ("model", "source", "size", "steps", "guidance", "licence"), rows, below


def judges() -> Listing:
    """The judge that ships, and those in configs/judges."""
    from probes.judges.presets import presets

    known = presets()
    shipped = ("verdict", "statistics", "embedded", "judge", "see its card")
    rows = [shipped, *((key, entry.network, entry.source, entry.data, entry.licence) for key, entry in known.items())]
    return ("judge", "network", "source", "learned from", "licence"), rows, [f"{key}: {entry.about}" for key, entry in known.items()]


def strategies() -> Listing:
    """The presets in configs/strategies."""
    from guide.strategies.listing import COLUMNS, listing, source

    return COLUMNS, listing(), [source()]


def show(listing: Listing) -> None:
    """Print it."""
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table

    titles, rows, below = listing
    table = Table(Column(titles[0], no_wrap=True), *titles[1:], box=box.SIMPLE)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(*below, sep="\n")
