"""Time our Boundary Attack beside foolbox's at equal or smaller median distance: row g.

32 images of 64, 5,000 queries. Both begin at the starting points that ours finds, which foolbox is
spared to look for: its own search ends in an error where uniform noise fools no model. Both
are asked through a counter of images. foolbox counts steps; a step costs it one query and every
tenth step one more, so that it gets a tenth more queries than ours. Ours runs with budgets of
1/16, 1/8, 1/4, 1/3, 1/2 and all of the queries: the ratio of the row is foolbox's time over that
of the smallest budget whose median L2 distance is no larger than foolbox's; the ratio at the full
budget stands beside it. With few steps foolbox hardly leaves the start (its step sizes first
change after about 300), and the first ratio says nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.inputs import Bench, Net, entry, open_bench, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import compared, rounds
from diascope.attacks import BoundaryAttack
from diascope.data.phantom import generate
from diascope.errors import UserError

SHARES = (16, 8, 4, 3, 2, 1)
QUERIES_TO_START = 150
BEYOND = 1.01  # of the distance to the border, where both sides start


class Counted(nn.Module):
    """A model that counts the images it is asked about, in its copies too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.tally = inner, Tally()

    def count_passes(self, images: int) -> None:
        """Count images whose changes went past this module (`diascope.models.changes`)."""
        self.tally.images += images

    def forward(self, x: Tensor) -> Tensor:
        self.tally.images += len(x)
        logits: Tensor = self.inner(x)
        return logits


class Tally:
    """A number that copies share."""

    images = 0

    def __deepcopy__(self, memo: object) -> Tally:
        return self


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the row, append it to the results and print it, as a JSON line and as text."""
    options = parser(__doc__ or "", pairs=1)
    options.add_argument("--model", type=Path, metavar="RUN", help="same as --model-standard")
    options.add_argument("--images", type=int, default=32, help="images under attack")
    options.add_argument("--queries", type=int, default=5000, help="of each image; foolbox's steps")
    options.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    args = options.parse_args(argv)
    args.model_standard = args.model or args.model_standard
    if args.quick:
        args.pairs, args.images, args.queries, args.size = 1, 3, 200, 16
    record = measure(open_bench(args, ["standard"], args.images, args.size), args)
    append(args.results, Path(__file__).stem, record)
    print(json.dumps(record))
    print("\n".join([*setting_lines(record), *speed_lines([record]), *distance_lines(record)]))
    return [record]


def fit(net: Net, size: int, seed: int, steps: int = 40) -> None:
    """Fit an untrained net to the phantom for some steps, so that it tells images apart."""
    data = generate(images=256, size=size, seed=seed + 1)
    x = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    y = torch.from_numpy(data.labels)
    device = next(net.model.parameters()).device
    optimizer = torch.optim.AdamW(net.model.parameters(), 1e-3)
    net.model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(steps):
            rows = torch.randint(len(x), (32,))
            optimizer.zero_grad()
            F.cross_entropy(net.model(x[rows].to(device)), y[rows].to(device)).backward()
            optimizer.step()
    net.model.eval()


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of row g, with the median distances and the queries of both."""
    net, device = bench.nets["standard"], torch.device(args.device)
    if not net.trained:
        fit(net, args.size, args.seed)
    rows, start = startable(bench, net, args.seed)
    x, y = bench.x[rows], bench.labels(net)[rows]
    away = (start - x).flatten(1).norm(dim=1)
    found: dict[str, dict[str, float]] = {}

    def note(name: str, x_adv: Tensor, images: int) -> None:
        distances = (x_adv - x).flatten(1).norm(dim=1)
        found[name] = {"median": distances.median().item(), "queries": images / len(x)}

    def ours(queries: int, number: int) -> None:
        model = Counted(peers.own_copy(net.model)).eval()
        generator = torch.Generator().manual_seed(args.seed + number)
        x_adv = BoundaryAttack(queries=queries)(model, x, y, start=start, generator=generator)
        note(f"ours {queries}", x_adv, model.tally.images)

    def theirs(steps: int, number: int) -> None:
        model = Counted(peers.own_copy(net.model)).eval()
        torch.manual_seed(args.seed + number)
        note("foolbox", foolbox_walk(model, x, y, start, steps), model.tally.images)

    budgets = sorted({max(20, args.queries // share) for share in SHARES})
    contenders = {f"ours {q}": partial(ours, q) for q in budgets}
    contenders["foolbox"] = partial(theirs, args.queries)
    warm = (partial(ours, 20), partial(theirs, 20))
    seconds = rounds(contenders, args.pairs, device, warm_up=lambda: [w(0) for w in warm])
    found = {name: found[name] for name in contenders}  # without the warm-up's
    as_near = [q for q in budgets if found[f"ours {q}"]["median"] <= found["foolbox"]["median"]]
    chosen = as_near[0] if as_near else budgets[-1]
    full = compared(
        {"diascope": seconds[f"ours {budgets[-1]}"], "foolbox": seconds["foolbox"]}, len(x)
    )
    return {
        "row": "g",
        "title": f"Boundary, {args.queries} steps, {len(x)} of {x.shape[-1]}",
        **circumstances(device),
        "notes": [
            *bench.notes,
            *([] if net.trained else ["the stand-in is fitted to the phantom"]),
        ],
        "quick": args.quick,
        "settings": {"images": len(x), "size": x.shape[-1], "steps": args.queries},
        **compared({"diascope": seconds[f"ours {chosen}"], "foolbox": seconds["foolbox"]}, len(x)),
        "as_near": bool(as_near),
        "our_queries": chosen,
        "start": away.median().item(),
        "at_full_budget": full["ratio"],
        "found": found,
        "seconds_each": seconds,
    }


def foolbox_walk(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, steps: int) -> Tensor:
    """Return what foolbox's Boundary Attack finds from `start`, all (B, C, H, W)."""
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = foolbox.attacks.BoundaryAttack(steps=steps)
    criterion = foolbox.criteria.Misclassification(y)
    x_adv: Tensor = attack.run(wrapped, x, criterion, starting_points=start)
    return x_adv


def startable(bench: Bench, net: Net, seed: int) -> tuple[Tensor, Tensor]:
    """Return which images are right and have a start, (M,) int64, and the starts (M, C, H, W).

    These lie a little beyond the border: at it, the sums of another batch may tell another class.
    """
    y = bench.labels(net)
    result = BoundaryAttack(queries=QUERIES_TO_START, source_step=1e-9, spherical_step=1e-9).run(
        net.model, bench.x, y, generator=torch.Generator().manual_seed(seed)
    )
    rows = (result.started & (result.distance > 0)).nonzero()[:, 0]
    x = bench.x[rows]
    start = (x + BEYOND * (result.x_adv[rows] - x)).clamp(0, 1)
    with torch.no_grad():
        apart = peers.own_copy(net.model)(start).argmax(1) != y[rows]
    if not apart.any():
        raise UserError("no image is classified correctly and has a starting point")
    return rows[apart], start[apart]


def distance_lines(record: dict[str, Any]) -> list[str]:
    """Return what each found at what cost, one line each, and the ratios in words."""
    lines = [f"{'':<14}{'median L2':>11}{'queries':>10}{'seconds':>10}"]
    lines.append(f"{'start':<14}{record['start']:>11.4f}")
    for name, found in record["found"].items():
        seconds = sorted(record["seconds_each"][name])[len(record["seconds_each"][name]) // 2]
        lines.append(f"{name:<14}{found['median']:>11.4f}{found['queries']:>10.0f}{seconds:>10.2f}")
    ratio, full = (
        record["ratio"]["foolbox"]["median"],
        record["at_full_budget"]["foolbox"]["median"],
    )
    what = "as near or nearer" if record["as_near"] else "NOT as near"
    lines.append(f"foolbox / ours: {ratio:.2f} at {record['our_queries']} queries ({what})")
    lines.append(f"foolbox / ours: {full:.2f} at equal steps and queries")
    return lines


if __name__ == "__main__":
    entry(main)
