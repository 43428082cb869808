"""This machine's time for traced operations: the costly ones are run once on random numbers, the rest go by rates found on those."""
import statistics
import time
from collections import Counter, defaultdict

import torch

from guide.planning.tracing import arguments, bytes_of, flops_of, kind_of


class Machine:
    """`machine.seconds(ops)`: of the operations of a trace. `budget`: seconds that it may spend on measuring in all."""

    def __init__(self, device: str = "cpu", budget: float = 8.):
        self.device, self.left = device, budget
        self.measured: dict[tuple, float] = {}
        self.overhead = _overhead(device)
        self.elsewhere = torch.zeros(1 << 22, device=device)  # a network's other numbers, which leave none of an operation's in the cache
        self.bandwidth = self._bandwidth()
        self.rates: dict[str, list[float]] = defaultdict(list)
        self.estimated = 0.  # seconds of the last call that went by rates

    def seconds(self, ops: Counter) -> float:
        """Predicted seconds of the operations one after the other, with what calling them costs."""
        total, self.estimated = sum(ops.values()) * self.overhead, 0.
        for key, count in sorted(ops.items(), key=lambda item: -item[1] * _weight(item[0])):
            if key not in self.measured and self.left > 0:
                self._measure(key)
            known = key in self.measured
            took = count * (self.measured[key] if known else self._by_rates(key))
            total += took
            self.estimated += 0. if known else took
        return total

    def _measure(self, key: tuple) -> None:
        guess = self._by_rates(key)
        if guess > self.left or bytes_of(key) > 4e9:
            return
        began = time.perf_counter()
        try:
            with torch.no_grad():
                args, kwargs = arguments(key, self.device)
                key[0](*args, **kwargs)
                self._wait()
                times = []
                while len(times) < 7 and (len(times) < 2 or time.perf_counter() - began < .04):
                    self.elsewhere.add_(1)
                    self._wait()
                    start = _clock(self.device)
                    key[0](*args, **kwargs)
                    self._wait()
                    times.append(_clock(self.device) - start)
        except (RuntimeError, TypeError, IndexError, NotImplementedError, ValueError):
            return  # an operation that wants other numbers than random ones
        finally:
            self.left -= time.perf_counter() - began
        self.measured[key] = statistics.median(times)
        if (flops := flops_of(key)) > 1e6:
            self.rates[kind_of(key)].append(flops / self.measured[key])

    def _by_rates(self, key: tuple) -> float:
        rates = self.rates.get(kind_of(key)) or [rate for found in self.rates.values() for rate in found] or [2e10]
        return max(flops_of(key) / statistics.median(rates), bytes_of(key) / self.bandwidth)

    def _bandwidth(self) -> float:
        x = torch.empty(1 << 22, device=self.device).uniform_()
        best = min(self._timed(lambda: x + 1.) for _ in range(5))
        return 2 * x.numel() * 4 / best

    def _timed(self, compute) -> float:
        start = _clock(self.device)
        compute()
        self._wait()
        return _clock(self.device) - start

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def _clock(device: str) -> float:
    """On one CPU thread the thread's own time, which other programs do not lengthen; wall time otherwise."""
    return time.thread_time() if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()


def _overhead(device: str) -> float:
    """What a network adds to each operation: Python, modules, and the graph for gradients."""
    net = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.SiLU()) for _ in range(100)]).to(device)
    x, weight = torch.zeros(1, 4, device=device), torch.zeros(4, 4, device=device)

    def best(compute) -> float:
        compute()
        return min(_spent(compute, device) for _ in range(5))

    def bare():
        for _ in range(100):
            torch.ops.aten.addmm(weight[0], x, weight)
            torch.ops.aten.silu(x)

    return max(0., best(lambda: net(x)) - best(bare)) / 200


def _spent(compute, device: str) -> float:
    start = _clock(device)
    compute()
    return _clock(device) - start


def _weight(key: tuple) -> float:
    return flops_of(key) / 2e10 + bytes_of(key) / 5e9
