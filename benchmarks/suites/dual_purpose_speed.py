"""How much quicker hidden critics are trained in one vectorised pass than in a loop over the same critics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

SHARDS, STEPS, ROUNDS, LOOPED = 1000, 2, 4, 4  # critics, steps of each, timed rounds, critics of a round of the loop
FLOORS = {"mlp": (8, 20), "conv": (2, 4)}  # times: (floor, aim)


def speed(critic: str) -> dict[str, Any]:
    """Processor seconds of one thread per critic and step, of gs-wgan's critics on 28 x 28 images, both ways in turn.

    The pass takes as many critics as the method does at a time; the loop, LOOPED of them, one after the other, by the
    same functions. Peak memory is with all SHARDS critics held, as the gate holds them.
    """
    import torch

    from veilset.core.facts import peak_mb
    from veilset.core.types import PublicInfo
    from veilset.methods.gan import gs_wgan
    from veilset.methods.gan.hidden_critics import Critics
    from veilset.privacy.enclave import Hidden, room

    info = PublicInfo(name="random", classes=tuple("0123456789"), shape=(1, 28, 28), units=60 * SHARDS)
    c, many = gs_wgan.Config(critic=critic), gs_wgan.TOGETHER[critic]
    stage = gs_wgan.Sanitised(c)
    critics = Critics(stage.network(info), c.lr, c.penalty, c.batch_size, stage.read(info))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    place = room(info, SHARDS)
    x, y = torch.rand(many, place, *info.shape), torch.randint(10, (many, place))
    count, fakes = torch.full((many,), 60), critics.seen(torch.rand(10, 16, *info.shape))

    def one(x: torch.Tensor, y: torch.Tensor, n: torch.Tensor) -> dict[str, torch.Tensor]:
        return critics.warmed(Hidden(x, y, n, {}), None, STEPS, fakes)

    together = torch.func.vmap(one, randomness="different")
    times: dict[str, list[float]] = {"pass": [], "loop": []}
    with torch.no_grad():
        together(x, y, count)
        one(x[0], y[0], count[0])
        for _ in range(ROUNDS):
            start = time.process_time()
            together(x, y, count)
            middle = time.process_time()
            for i in range(LOOPED):
                one(x[i], y[i], count[i])
            times["pass"].append((middle - start) / many / STEPS)
            times["loop"].append((time.process_time() - middle) / LOOPED / STEPS)
        models = {k: v[0].expand(SHARDS, *v.shape[1:]).clone() for k, v in together(x, y, count).items()}
    best = {k: min(v) for k, v in times.items()}
    facts = {"critic": critic, "shards": SHARDS, "weights": sum(v[0].numel() for v in models.values())}
    return facts | {"seconds": best, "times": best["loop"] / best["pass"], "peak_mb": peak_mb()}


def table(speeds: Sequence[dict[str, Any]]) -> list[str]:
    """A row a critic."""
    return [
        "| critic | weights | ms a step, pass | ms a step, loop | times | floor, aim | peak MB |",
        "|" + "---|" * 7,
        *_rows(speeds),
    ]


def _rows(speeds: Sequence[dict[str, Any]]) -> Iterator[str]:
    for s in speeds:
        apart = [f"{1000 * s['seconds'][k]:.3f}" for k in ("pass", "loop")]
        floor, aim = FLOORS[s["critic"]]
        words = [
            s["critic"],
            f"{s['weights']:,}",
            *apart,
            f"{s['times']:.1f}",
            f"{floor}, {aim}",
            f"{s['peak_mb']:.0f}",
        ]
        yield f"| {' | '.join(words)} |"
