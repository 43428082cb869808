"""The loop of the recipes: what repeats, what survives an interruption, how gradients are clipped, and two processes that agree."""
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from probes.errors import UserError

pytest.importorskip("accelerate")
from recipes import options, training
from recipes.training import Run, known_mean, train

ROOT = Path(__file__).parents[1]


def small(folder: Path, stop: int | None = None, width: int = 8, **options) -> Run:
    """A few steps of a network with batch norm on noise from all streams; interrupted before step `stop`."""
    torch.manual_seed(0)
    models = nn.ModuleDict({"net": nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1))})
    run = Run(models, torch.optim.AdamW(models.parameters(), 1e-2), folder, 1.0, **{"steps": 8, **options})

    def losses(step, progress):
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=run.generator) + .1 * torch.randn(16, 4) + run.rng.random()
        return {"error": (models["net"](x) - x.sum(1, keepdim=True)).square().mean(), "_watched": x.mean()}

    train(run, losses)
    return run


def same(a: Run, b: Run) -> bool:
    pairs = [(getattr(a, kind).state_dict(), getattr(b, kind).state_dict()) for kind in ("models", "average")]
    return all(torch.equal(x[name], y[name]) for x, y in pairs for name in x)


def test_interrupted_twice_equals_uninterrupted_and_another_seed_does_not(tmp_path, monkeypatch):
    whole = small(tmp_path / "whole")
    monkeypatch.setattr(training, "SAVE_EVERY", 0.0)
    for stop in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "parts", stop)
    assert same(whole, small(tmp_path / "parts"))
    assert not same(whole, small(tmp_path / "other", seed=1))


@pytest.mark.parametrize(("told", "said"), [((), "Interrupted: the same command begins this step again"), ((training.TOLD,), "")])
def test_a_recipe_stopped_by_ctrl_c_says_once_what_the_same_command_does(monkeypatch, capsys, told, said):
    def main():
        raise KeyboardInterrupt(*told)

    monkeypatch.setattr(sys, "argv", ["recipe"])
    with pytest.raises(SystemExit) as end:
        options.start(main)
    assert end.value.code == 130
    out = capsys.readouterr().err
    assert said in out
    assert out.count("Interrupted") == bool(said)


def test_what_a_recipe_keeps_in_the_state_comes_back_and_older_checkpoints_have_none(tmp_path):
    first = small(tmp_path)
    first.state["pool"] = torch.arange(3)
    first.save()
    assert small(tmp_path).state["pool"].tolist() == [0, 1, 2]
    older = torch.load(first.checkpoint, weights_only=True)
    del older["state"]
    torch.save(older, first.checkpoint)
    again = small(tmp_path)
    assert again.state == {}
    assert same(first, again)


def test_minutes_are_a_budget_too_and_the_log_ends_with_the_last_step(tmp_path):
    run = small(tmp_path, steps=3)
    assert run.log[-1]["step"] == 3
    timed = Run(run.models, run.optimizer, tmp_path / "timed", .001)
    train(timed, lambda step, progress: {"error": timed.models["net"](torch.randn(4, 4)).square().mean()})
    assert timed.progress == 1
    assert timed.seconds >= .06
    assert timed.step > 0


def test_the_rate_rises_then_falls_to_two_percent(tmp_path):
    run = small(tmp_path, steps=4)
    run.steps, rates = 1000, []
    for run.step in (0, 20, 510, 1000):
        rates.append(run.rate())
    assert rates == pytest.approx([.05, 1., .02 + .49 * (1 + math.cos(math.pi / 2)), .02])


def test_players_are_clipped_apart(tmp_path):
    """Plain descent at rate 1 times the warm-up's .05: a gradient of 1000 moves by .05, its neighbour of .5 still by .025."""
    models = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    groups = [{"params": list(models[name].parameters()), "player": name} for name in "ab"]
    run = Run(models, torch.optim.SGD(groups, 1.0), tmp_path, 1.0, steps=1)
    before = [models[name].weight.item() for name in "ab"]
    train(run, lambda step, progress: {"a": 1000 * models["a"].weight.sum(), "b": .5 * models["b"].weight.sum()})
    moved = [old - models[name].weight.item() for old, name in zip(before, "ab", strict=True)]
    assert moved == pytest.approx([.05, .025], rel=1e-4)


def test_a_step_without_a_finite_gradient_changes_nothing_and_too_many_are_told(tmp_path):
    model = nn.ModuleDict({"net": nn.Linear(2, 1)})
    before = model["net"].weight.clone()
    run = Run(model, torch.optim.AdamW(model.parameters(), 1e-2), tmp_path / "few", 1.0, steps=3)
    train(run, lambda step, progress: {"error": model["net"](torch.full((1, 2), math.nan)).sum()})
    assert torch.equal(model["net"].weight, before)
    run = Run(model, torch.optim.AdamW(model.parameters(), 1e-2), tmp_path / "many", 1.0, steps=200)
    with pytest.raises(FloatingPointError, match="101 steps without a finite gradient"):
        train(run, lambda step, progress: {"error": model["net"](torch.full((1, 2), math.nan)).sum()})


def test_a_checkpoint_of_another_model_is_told(tmp_path):
    small(tmp_path, steps=1)
    with pytest.raises(UserError, match="of another model"):
        small(tmp_path, steps=2, width=9)


def test_the_mean_over_what_is_known():
    values = torch.tensor([1., math.nan, 5.], requires_grad=True)
    assert known_mean(values, torch.tensor([True, False, True])).item() == 3
    assert known_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0


TWO = """
import sys, torch
from pathlib import Path
from torch import nn
from recipes.training import Run, accelerator, train

folder, accelerator = Path(sys.argv[1]), accelerator("cpu")
torch.manual_seed(0)
models = nn.ModuleDict({"body": nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), "held": nn.Linear(8, 3), "idle": nn.Linear(2, 2)})
run = Run(models, torch.optim.AdamW(models.parameters(), 1e-2), folder, 1.0, steps=6, accelerator=accelerator)
start = {name: value.clone() for name, value in models.state_dict().items()}
batches, held = [], None

def losses(step, progress):
    global held
    if step == 3:  # as the text tower does
        models["held"].requires_grad_(False)
        held = models["held"].weight.clone()
    batches.append(torch.randn(16, 4, generator=run.generator))
    return {"error": models["held"](models["body"](batches[-1])).float().square().mean()}

train(run, losses)
kept = {"parameters": dict(models.named_parameters()), "start": start, "batches": torch.stack(batches), "held": held, "main": run.main}
torch.save(kept, folder / f"{accelerator.process_index}.pt")
"""


@pytest.mark.slow
def test_two_processes_draw_apart_and_keep_the_same_weights(tmp_path):
    (tmp_path / "two.py").write_text(TWO)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, str(tmp_path / "two.py"), str(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    assert (first["main"], second["main"]) == (True, False)
    assert not torch.equal(first["batches"], second["batches"])
    for name, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][name]), name
        assert torch.equal(value, first["start"][name]) == name.startswith("idle"), name
    assert torch.equal(first["held"], first["parameters"]["held.weight"]), "what froze part-way stays, weight decay and all"
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 6


def test_what_decides_a_run_is_kept_of_its_command_line():
    typed = ["--data", "/home/me", "--steps", "4", "--rate=0.1", "--start", "/home/me/w", "--device", "cpu"]
    assert options.given(typed) == "--steps 4 --rate=0.1"
    assert options.place(ROOT / "guide" / "embedded") == "guide/embedded"
