"""A plan as `guide plan` prints it."""
from rich import box
from rich.table import Table

from guide.planning.plan import Plan


def table(plan: Plan) -> Table:
    """A row per kind of work: how often per picture, seconds, share, operations, the memory it takes besides weights."""
    drawn = Table("work", "rows/picture", "s/row", "s/picture", "share", "GFLOP/row", "MiB", box=box.SIMPLE)
    for part in plan.parts:
        seconds = part.rows * part.seconds
        drawn.add_row(part.name, f"{part.rows:g}", f"{part.seconds:.4f}", f"{seconds:.2f}", f"{seconds / plan.seconds:.0%}",
                      f"{part.flops / 1e9:.1f}", f"{part.peak / 2**20:.0f}")
    return drawn


def lines(plan: Plan, pictures: int) -> list[str]:
    """What the table comes to."""
    width, height = plan.size
    top = plan.dominant
    told = [f"{plan.model}, {plan.strategy}, {width} x {height}, {plan.steps} steps, {plan.batch} at a time, {plan.dtype} on "
            f"{plan.device}: {plan.seconds:.2f} s a picture, {plan.seconds * pictures:.0f} s for {pictures}; peak memory "
            f"{plan.memory / 2**30:.2f} GiB, of which weights {plan.weights / 2**30:.2f}.",
            f"What dominates: {top.name} ({top.rows * top.seconds / plan.seconds:.0%} of the time)."]
    if plan.share_estimated > .02:
        told.append(f"{plan.share_estimated:.0%} of the time goes by rates, not by operations measured here.")
    return told + plan.notes
