"""One update over a flat array: held against torch's Adam and against its own twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.recon4d.fitting.adam import EPS, PIECE, Adam, update_reference
from orbit4d.recon4d.raster import threads


def made(views: int = 1) -> Adam:
    generator = torch.Generator().manual_seed(1)
    a, b, c = (torch.randn(size, generator=generator) for size in ((PIECE + 7, 3), (5,), (11, 2)))
    return Adam([("a", 1e-2, [a]), ("field", 3e-3, [b, c])], views)


def gradients(adam: Adam, step: int, views: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(len(adam.values), generator=generator) for _ in range(views)]


@pytest.mark.parametrize("views", [1, 2])
def test_it_is_adam_and_a_group_that_joins_late_counts_for_itself(views: int) -> None:
    ours = made(views)
    leaves = {name: [t.detach().clone() for t in group] for name, group in ours.leaves.items()}
    theirs = torch.optim.Adam(
        [{"params": leaves["a"], "lr": 1e-2}, {"params": leaves["field"], "lr": 3e-3}],
        eps=EPS,
        betas=(1 - 0.1 * views, 1 - 0.001 * views),
    )
    for step in range(8):
        rows = gradients(ours, step, views)
        for view, row in enumerate(rows):
            ours.row(view).copy_(row)
        mean = torch.stack(rows).mean(0)
        names = ["a", "field"] if step >= 3 else ["a"]
        for name in ("a", "field"):
            at = ours.groups[name].start
            for leaf in leaves[name]:
                run = mean[at : at + leaf.numel()].view(leaf.shape)
                leaf.grad = run.clone() if name in names else None
                at += leaf.numel()
        ours.step(views, names)
        theirs.step()
    for name, group in leaves.items():
        for mine, other in zip(ours.leaves[name], group):
            # Eight updates of about the rate each, in float32.
            torch.testing.assert_close(mine.detach(), other, rtol=0, atol=2e-7 * 8)
    assert [g.updates for g in ours.groups.values()] == [8, 5]


def test_the_twin_says_the_same_and_threads_change_no_bit() -> None:
    found = []
    for count in (1, 2, 5):
        with threads.alone(count):
            adam = made(2)
            for step in range(3):
                for view, row in enumerate(gradients(adam, step, 2)):
                    adam.row(view).copy_(row)
                adam.step(2, ["a", "field"])
            found.append((adam.values.numpy().tobytes(), adam.second.numpy().tobytes()))
    assert found[0] == found[1] == found[2]
    slow = made(2)
    for step in range(3):
        for group in slow.groups.values():
            group.updates += 1
        rows = gradients(slow, step, 2)
        update_reference(slow.values, slow.first, slow.second, rows, list(slow.groups.values()), slow.betas)
    torch.testing.assert_close(slow.values, torch.frombuffer(bytearray(found[0][0]), dtype=torch.float32))


def test_leaves_are_views_and_records_come_back() -> None:
    adam = made()
    adam.put(adam.row(0), "field", [torch.ones(5), None])
    assert adam.part(adam.row(0), "field").sum() == 5
    adam.step(1, ["field"])
    assert adam.leaves["field"][0].data_ptr() == adam.part(adam.values, "field").data_ptr()
    again = made()
    again.restore(adam.record())
    assert again.groups["field"].updates == 1 and torch.equal(again.first, adam.first)
    with pytest.raises(ValueError, match="other parameters"):
        Adam([("a", 1.0, [torch.zeros(3)])]).restore(adam.record())
    assert np.isfinite(adam.values.numpy()).all()
