"""One update over a flat array: held against torch's Adam and against its own twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from orbit4d.recon4d import muon
from orbit4d.recon4d.deformation.building import build_field
from orbit4d.recon4d.deformation.field import hidden_matrices
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


def with_matrices() -> Adam:
    generator = torch.Generator().manual_seed(2)
    sizes = ((7,), (16, 16), (5, 3), (16, 16), (9,))
    leaves = [torch.randn(size, generator=generator) for size in sizes]
    adam = Adam([("a", 1e-2, [torch.ones(50, 3)]), ("field", 4e-3, leaves)], 2)
    adam.orthogonalise("field", [1, 3], 0.02)
    return adam


def test_an_orthogonal_update_moves_all_directions_alike() -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(16, 16, generator=generator)
    u, _, v = torch.linalg.svd(matrix)
    found = torch.linalg.svdvals(muon.orthogonal(matrix))
    # The paper's five steps end within 0.3 of 1, whatever the matrix's own size is.
    assert found.min() > 0.68 and found.max() < 1.2
    torch.testing.assert_close(muon.orthogonal(matrix * 1e-6), muon.orthogonal(matrix), rtol=0, atol=1e-5)
    # Singular vectors stay: between them what is left is diagonal.
    between = u.T @ muon.orthogonal(matrix) @ v.T
    torch.testing.assert_close(between, torch.diag(between.diagonal()), rtol=0, atol=1e-5)
    assert not muon.orthogonal(torch.zeros(4, 4)).any()


def test_matrices_go_by_muon_and_all_else_by_adam() -> None:
    adam, plain = with_matrices(), with_matrices()
    plain.orthogonalise("field", [1, 3], 0.0)
    before = [leaf.detach().clone() for leaf in adam.leaves["field"]]
    for step in range(2):
        rows = gradients(adam, step, 2)
        for each in (adam, plain):
            each.groups["field"].rate = 1e-3
            for view, row in enumerate(rows):
                each.row(view).copy_(row)
            each.step(2, ["a", "field"])
    assert torch.equal(adam.leaves["a"][0], plain.leaves["a"][0])
    for i in (0, 2, 4):
        assert torch.equal(adam.leaves["field"][i], plain.leaves["field"][i])
    momentum, value = torch.zeros(16, 16), before[1]
    at = adam.groups["field"].start + 7
    for step in range(2):
        one, two = (row[at : at + 256].view(16, 16) for row in gradients(adam, step, 2))
        # A quarter of the base rate, so a quarter of Muon's.
        muon.update(value, momentum, (one + two) / 2, 0.02 / 4, 0.2)
    torch.testing.assert_close(adam.leaves["field"][1].detach(), value, rtol=0, atol=1e-6)


def test_muon_has_a_twin_the_same_bits_on_any_threads_and_its_momentum_in_the_record() -> None:
    found = []
    for count in (1, 2, 5):
        with threads.alone(count):
            adam = with_matrices()
            for step in range(3):
                for view, row in enumerate(gradients(adam, step, 2)):
                    adam.row(view).copy_(row)
                adam.step(2, ["a", "field"])
        found.append((adam.values.numpy().tobytes(), adam.first.numpy().tobytes()))
    assert found[0] == found[1] == found[2]
    slow = with_matrices()
    for step in range(3):
        for group in slow.groups.values():
            group.updates += 1
        rows = gradients(slow, step, 2)
        update_reference(slow.values, slow.first, slow.second, rows, list(slow.groups.values()), slow.betas)
    # Newton-Schulz makes differences of the last digit some ten times larger.
    torch.testing.assert_close(slow.values, adam.values, rtol=0, atol=1e-5)
    again = with_matrices()
    again.restore(adam.record())
    again.values.copy_(adam.values)
    for each in (adam, again):
        for view, row in enumerate(gradients(adam, 9, 2)):
            each.row(view).copy_(row)
        each.step(2, ["a", "field"])
    assert torch.equal(adam.values, again.values)


def test_muon_is_for_matrices_of_a_node_field() -> None:
    nodes = build_field({"kind": "nodes", "n_nodes": 8, "width": 16})
    shapes = [tuple(list(nodes.parameters())[i].shape) for i in hidden_matrices(nodes)]
    assert shapes == [(16, 16), (16, 16)]
    residual = build_field({"kind": "residual", "n_nodes": 8, "width": 16, "keys": [0.0, 1.0], "rows": 5})
    assert [tuple(list(residual.parameters())[i].shape) for i in hidden_matrices(residual)] == shapes
    assert hidden_matrices(build_field({"kind": "hexplane"})) == []
