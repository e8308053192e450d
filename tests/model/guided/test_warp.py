"""The forward warp: planes and homographies, a slow twin of its kernels, and the released rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from orbit4d.model import forward_warp
from orbit4d.model.guided.latent_mask import latent_frames, latent_mask, mask_for
from orbit4d.model.guided.warp import Source, warp_frames, warp_sources, warp_to
from orbit4d.model.guided.warp_kernels import CUT, POINT

H, W = 40, 56
K = np.array([[60.0, 0, W / 2], [0, 60.0, H / 2], [0, 0, 1]])
EYE = np.eye(4)


def moved(
    x: float = 0, y: float = 0, z: float = 0, turn: tuple[float, float, float] = (0, 0, 0)
) -> np.ndarray:
    """A world-to-camera matrix: the world moved, then turned (degrees)."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    pose[:3, 3] = (x, y, z)
    return pose


def pattern(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A smooth picture [..., 3] of pixel coordinates, 0 to 255."""
    return 127 + 100 * np.stack([np.sin(u / 9), np.cos(v / 7), np.sin((u + v) / 11)], -1)


def grid() -> tuple[np.ndarray, np.ndarray]:
    return np.meshgrid(np.arange(W) + 0.5, np.arange(H) + 0.5)


def wavy() -> tuple[np.ndarray, np.ndarray]:
    """An image and a smooth depth without steps."""
    u, v = grid()
    return pattern(u, v).astype(np.float32), (2 + 0.1 * np.sin(u / 8) + 0.1 * np.cos(v / 9)).astype(
        np.float32
    )


def test_identity() -> None:
    image, depth = wavy()
    out, seen = forward_warp(image, depth, K, EYE, EYE)
    assert seen.all() and np.abs(out - image).max() < 1e-2
    bytes_, seen = forward_warp(np.rint(image).astype(np.uint8), depth, K, EYE, EYE)
    assert bytes_.dtype == np.uint8 and np.abs(bytes_ - np.rint(image)).max() <= 1


@pytest.mark.parametrize("pixels", [3.0, -4.25])
def test_a_plane_shifts_by_focal_length_times_baseline_over_depth(pixels: float) -> None:
    """A smooth picture at linear interpolation: 100 (1/7)^2 / 8 = 0.26 levels."""
    u, v = grid()
    out, seen = forward_warp(pattern(u, v), np.full((H, W), 2.0), K, EYE, moved(x=pixels * 2 / 60))
    inside = seen & (u - pixels > 1) & (u - pixels < W - 1)
    assert inside.mean() > 0.85 and not seen[(u - pixels < 0) | (u - pixels > W)].any()
    assert np.abs(out - pattern(u - pixels, v))[inside].max() < 0.3


def test_a_slanted_plane_follows_its_homography() -> None:
    """n . X = d: x2 ~ K (R + t n' / d) K^-1 x1, and the warped picture shows pixel x1 at x2."""
    n, d = np.array([0.2, -0.1, 0.97]), 2.0
    u, v = grid()
    rays = np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T
    depth = d / (rays @ n)
    pose = moved(0.1, -0.05, 0.08, (2, -4, 3))
    out, seen = forward_warp(pattern(u, v), depth, K, EYE, pose)
    back = np.linalg.inv(K @ (pose[:3, :3] + np.outer(pose[:3, 3], n) / d) @ np.linalg.inv(K))
    at = np.stack([u, v, np.ones_like(u)], -1) @ back.T
    x, y = at[..., 0] / at[..., 2], at[..., 1] / at[..., 2]
    inside = seen & (x > 1) & (y > 1) & (x < W - 1) & (y < H - 1)
    assert inside.mean() > 0.7
    assert np.abs(out - pattern(x, y))[inside].max() < 0.5
    # An image of its own coordinates says where each pixel comes from: linear, so nothing is interpolated.
    places, seen = forward_warp(np.stack([u, v, u + v], -1), depth, K, EYE, pose)
    inside &= seen
    assert np.abs(places[..., 0] - x)[inside].max() < 1e-6 and np.abs(places[..., 1] - y)[inside].max() < 1e-6


@pytest.mark.parametrize("soft", [False, True])
def test_the_nearer_of_two_planes_wins(soft: bool) -> None:
    image, depth = np.zeros((H, W, 3), np.float32), np.full((H, W), 3.0, np.float32)
    near = np.zeros((H, W), bool)
    near[10:30, 15:40] = True
    image[near], depth[near] = 200, 2.0
    pose = moved(x=0.3)  # the near plane moves 9 pixels, the far one 6
    warped = warp_to(Source(image, depth, K, EYE), K, pose, (W, H), soft=soft)
    assert np.allclose(warped.image[12:28, 27:46], 200, atol=1)
    assert np.allclose(warped.depth[12:28, 27:46], 2, atol=1e-4)
    hole = ~warped.seen[12:28, 21:24]
    assert hole.all(), "what the near plane hid is not known"
    assert warped.confidence[warped.seen].min() > 0 and not warped.confidence[~warped.seen].any()


def test_there_and_back() -> None:
    """A smooth surface, two interpolations: at least 40 dB where it is seen twice."""
    image, depth = wavy()
    pose = moved(0.06, -0.04, 0.05, (1, -2, 2))
    there = warp_to(Source(image, depth, K, EYE), K, pose, (W, H))
    back = warp_to(Source(there.image, there.depth, K, pose), K, EYE, (W, H))
    inside = back.seen.copy()
    inside[:2] = inside[-2:] = False
    inside[:, :2] = inside[:, -2:] = False
    error = ((back.image - image)[inside] / 255) ** 2
    assert inside.mean() > 0.7 and -10 * np.log10(error.mean()) > 40


def test_another_size_and_lens() -> None:
    image, depth = wavy()
    big = np.array([[120.0, 0, W], [0, 120.0, H], [0, 0, 1]])
    warped = warp_to(Source(image, depth, K, EYE), big, EYE, (2 * W, 2 * H))
    u, v = np.meshgrid((np.arange(2 * W) + 0.5) / 2, (np.arange(2 * H) + 0.5) / 2)
    inside = np.zeros((2 * H, 2 * W), bool)
    inside[2:-2, 2:-2] = True
    assert warped.seen[inside].all()
    assert np.abs(warped.image - pattern(u, v))[inside].max() < 0.6
    assert np.allclose(warped.confidence[inside], 0.25, atol=0.02)  # one source pixel fills four


def test_the_world_may_be_anywhere() -> None:
    image, depth = wavy()
    pose1, pose2 = moved(turn=(5, 20, -3)), moved(0.1, 0, 0.05, (6, 22, -3))
    shift = moved(3, -2, 7, (10, 20, 30))
    a, seen_a = forward_warp(image.astype(np.float64), depth, K, pose1, pose2)
    b, seen_b = forward_warp(image.astype(np.float64), depth, K, pose1 @ shift, pose2 @ shift)
    assert np.array_equal(seen_a, seen_b) and np.abs(a - b).max() < 1e-9


def test_what_turns_away_or_lies_behind_is_not_seen() -> None:
    image, depth = wavy()
    _, seen = forward_warp(image, depth, K, EYE, moved(z=-3))  # the camera has passed the surface
    assert not seen.any()
    _, seen = forward_warp(image, depth, K, EYE, moved(z=4, turn=(0, 180, 0)))
    assert not seen.any(), "from behind a surface shows another side, which nobody saw"
    unknown = depth.copy()
    unknown[:, : W // 2] = np.inf
    _, seen = forward_warp(image, unknown, K, EYE, EYE)
    assert not seen[:, : W // 2 - 1].any() and seen[:, W // 2 :].all()


def test_two_sources_see_the_union_and_threads_change_nothing() -> None:
    image, depth = wavy()
    left, right = depth.copy(), depth.copy()
    left[:, 30:], right[:, :25] = np.inf, np.inf
    sources = [Source(image, left, K, EYE), Source(image, right, K, EYE)]
    poses = [moved(x=0.02 * k) for k in range(4)]
    for pose in poses[:1]:
        both = warp_sources(sources, K, pose, (W, H))
        each = [warp_to(s, K, pose, (W, H)) for s in sources]
        assert np.array_equal(both.seen, each[0].seen | each[1].seen)
        assert np.abs(both.image - image)[both.seen].max() < 1
    runs = [warp_frames([sources] * 4, [K] * 4, poses, (W, H), threads=n) for n in (1, 4)]
    for a, b in zip(*runs, strict=True):
        assert all(
            np.array_equal(getattr(a, n), getattr(b, n)) for n in ("image", "seen", "depth", "confidence")
        )


def test_a_surface_says_more_than_points() -> None:
    """A rim that one source fills by points alone takes the colour of the other's surface, four to one."""
    image, depth = np.full((H, W, 1), 100.0, np.float32), np.full((H, W), 2.0, np.float32)
    thin = depth.copy()
    thin[:, 1::2] = np.inf  # columns without neighbours: no triangle
    pose = moved(x=0.1)  # 3 pixels
    other = Source(image * 2, depth, K, moved(x=0.2))  # from the other side, as far
    alone = warp_to(Source(image, thin, K, EYE), K, pose, (W, H))
    both = warp_sources([Source(image, thin, K, EYE), other], K, pose, (W, H))
    filled = alone.seen & (np.arange(W) > 5) & (np.arange(W) < W - 5)
    assert filled.sum() > 100 and (alone.confidence[filled] == POINT).all()
    assert np.allclose(both.image[filled], (100 * POINT + 200) / (1 + POINT), atol=1)


def twin(source: Source, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The surface of `warp_to` once more, pixel by pixel over all triangles, in float64: colour and 1/z."""
    h, w = source.depth.shape
    u, v = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    at = (np.stack([u, v, np.ones_like(u)], -1) @ np.linalg.inv(K).T) * source.depth[..., None]
    at = at @ pose[:3, :3].T + pose[:3, 3]
    p = at @ K.T
    xy, z = p[..., :2] / p[..., 2:], p[..., 2]
    near, out = np.zeros((h, w)), np.zeros((h, w, 3))
    for i, j in itertools.product(range(h - 1), range(w - 1)):
        a, b, c, d = (i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)
        dep = source.depth
        falling = abs(dep[a] - dep[c]) <= abs(dep[b] - dep[d])
        for triangle in ((a, b, c), (a, c, d)) if falling else ((a, b, d), (b, c, d)):
            depths = [dep[t] for t in triangle]
            if max(depths) - min(depths) > CUT * min(depths):
                continue
            edge = np.array([xy[triangle[1]] - xy[triangle[0]], xy[triangle[2]] - xy[triangle[0]]])
            if np.linalg.det(edge) <= 0:
                continue
            q = np.stack([u.ravel(), v.ravel()], 1)
            rest = np.linalg.solve(edge.T, (q - xy[triangle[0]]).T).T
            weights = np.column_stack([1 - rest.sum(1), rest])
            for k in np.nonzero((weights >= -1e-6).all(1))[0]:
                y, x = divmod(int(k), w)
                inverse = np.array([1 / z[t] for t in triangle]) * weights[k]
                if inverse.sum() > near[y, x]:
                    near[y, x] = inverse.sum()
                    shares = inverse * depths  # linear in the source's pixels
                    out[y, x] = (
                        sum(s * source.image[t] for s, t in zip(shares, triangle, strict=True)) / shares.sum()
                    )
    return out, near


def test_the_kernel_is_its_slow_twin() -> None:
    """Colours to 1e-3 of 255; a pixel exactly on an edge may be drawn by one and not by the other."""
    rng = np.random.default_rng(0)
    u, v = np.meshgrid(np.arange(18) + 0.5, np.arange(14) + 0.5)
    depth = (2 + 0.02 * rng.random((14, 18)) + 0.6 * (u > 9)).astype(np.float32)
    source = Source(pattern(u * 3, v * 3).astype(np.float32), depth, K, EYE)
    pose = moved(0.13, -0.04, 0.1, (1, 2, 3))
    colour, near = twin(source, pose)
    warped = warp_to(source, K, pose, (18, 14))
    drawn = near > 0
    ratio = np.where(drawn & warped.seen, warped.depth, 1) * np.where(drawn, near, 1)
    surface = drawn & (np.abs(ratio - 1) < 1e-4)
    point = drawn & (ratio < 0.99)  # the rim of the near layer, which no triangle covers
    assert surface.sum() > 60 and (surface | point).sum() >= drawn.sum() - 1
    assert np.abs(warped.image - colour)[surface].max() < 0.05


@pytest.mark.parametrize("rule", ["repo-single", "repo-video", "repo-two"])
def test_released_rules(reference, rule: str) -> None:
    """Sums in another order flip roundings and whole-number positions."""
    z = reference("warp")
    for case in sorted(n.removesuffix("_image") for n in z if n.endswith("_image")):
        given = [z[f"{case}_{n}"] for n in ("image", "depth", "K", "pose1", "pose2")]
        out, seen = forward_warp(*given, rule=rule)
        expected, there = z[f"{case}_{rule}_warped"], z[f"{case}_{rule}_seen"]
        both = seen & there
        assert (seen != there).mean() <= 0.004
        off = np.abs(out.astype(int) - expected.astype(int)).max(-1) > 1
        assert out.dtype == np.uint8 and off[both].mean() <= 0.005


def test_latent_masks(reference) -> None:
    z = reference("latent_mask")
    for case in sorted({n.split("_")[0] for n in z}):
        kept, latent = latent_mask(z[f"{case}_seen"])
        assert np.array_equal(kept, z[f"{case}_kept"]) and np.array_equal(latent, z[f"{case}_latent_seen"])


def test_growth_of_the_unseen_follows_the_latents_size() -> None:
    """A disc of 10 pixels in 32: latents of 4 see of it what they see ungrown; 2 pixels would hide all."""
    rows, columns = np.mgrid[:32, :32] + 0.5
    disc = (rows - 17) ** 2 + (columns - 16) ** 2 < 5**2
    kept, latent = mask_for(disc, 4)
    assert np.array_equal(kept, disc) and latent.sum() >= 2
    assert not latent_mask(disc, 4)[1].any()
    # A block of pixels across the border of the disc would pin what was filled in beyond it.
    assert np.array_equal(latent, disc.reshape(8, 4, 8, 4).all((1, 3)))
    for factor, pixels in ((8, 2), (16, 4)):
        for found, named in zip(mask_for(disc, factor), latent_mask(disc, factor, grow=pixels)):
            assert np.array_equal(found, named)


def test_latent_mask_by_hand() -> None:
    seen = np.ones((16, 16), bool)
    seen[0, 0] = False
    kept, latent = latent_mask(seen, grow=2)
    assert (~kept).sum() == 9 and latent.all()  # 9 of 64 pixels: less than a fifth
    kept, latent = latent_mask(seen, grow=3)
    assert (~kept).sum() == 16 and latent.tolist() == [[False, True], [True, True]]
    with pytest.raises(ValueError, match="no multiple of 8"):
        latent_mask(np.ones((10, 16), bool))
    frames, far = latent_frames(np.array([[[1]], [[1]], [[0]], [[1]], [[1]]], bool), np.arange(5.0))
    assert frames.ravel().tolist() == [True, False] and far.tolist() == [0, 4]
    with pytest.raises(ValueError, match="4n"):
        latent_frames(np.ones((6, 1, 1), bool), np.arange(6.0))


def test_bad_input() -> None:
    image, depth = wavy()
    bad = depth.copy()
    bad[3, 4] = np.nan
    for arguments, words in (
        ((image, depth[:-1], K, EYE, EYE), "they must be of one size"),
        ((image, bad, K, EYE, EYE), "1 values are NaN"),
        ((image, -depth, K, EYE, EYE), "negative"),
        ((image, depth * np.inf, K, EYE, EYE), "nothing to warp"),
        ((image, depth, K[:2], EYE, EYE), r"K: needs a finite \[3, 3\]"),
        ((image, depth, K, EYE, EYE, "best"), "rule: ours"),
    ):
        with pytest.raises(ValueError, match=words):
            forward_warp(*arguments)
