"""Laws of what is derived from surfaces: maps, flow, points, tracks, compared with rays cast one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from orbit4d.datasets import Camera, InputError, WorkError, orbit
from orbit4d.datasets.cameras.camera import orbit_c2w
from orbit4d.datasets.geometry.action import AlphaMap, Material, decode_mesh, encode_mesh
from orbit4d.datasets.geometry.clip import ClipGeometry, clip_geometry
from orbit4d.datasets.geometry.surface_map import decode_maps, encode_maps, with_exceptions

SIZE = 40


def ways_of(camera: Camera) -> np.ndarray:
    """[H * W, 3] rays through the pixels' centres, of unit depth."""
    column, row = np.meshgrid(np.arange(camera.w) + 0.5, np.arange(camera.h) + 0.5)
    local = np.stack(
        [(column - camera.cx) / camera.fl_x, -(row - camera.cy) / camera.fl_y, -np.ones_like(row)]
    )
    return local.reshape(3, -1).T @ camera.c2w[:3, :3].T


def turned(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


@pytest.fixture(scope="module")
def scene(make_ball: Any, make_mesh: Any) -> ClipGeometry:
    """A ball that turns by 40 degrees while it rises, and one that circles it; 5 frames from an orbit."""
    vertices, faces = make_ball(10)
    times = np.linspace(0, 1, 5)
    inner = [vertices * 0.3 @ turned(np.radians(40 * t)).T + [0, 0, 0.1 * t] for t in times]
    outer = [vertices * 0.1 + 0.42 * np.array([np.cos(3 * t), np.sin(3 * t), 0.0]) for t in times]
    everything = np.concatenate([inner, outer], axis=1)
    cameras = orbit(12, elevation_deg=10.0, size=(SIZE, SIZE))[:5]
    mesh = make_mesh(
        everything,
        np.concatenate([faces, faces + len(vertices)]),
        cameras,
        object=np.repeat([0, 1], len(faces)).astype(np.uint16),
        objects=("inner", "outer"),
    )
    return clip_geometry(mesh, cameras, mesh.seconds, where="scene")


def test_maps_are_what_rays_meet_first(scene: ClipGeometry, cast: Any) -> None:
    """Ids may differ where a ray meets an edge; depths may not."""
    for frame in (0, 3):
        camera = scene.cameras[frame]
        found, far = cast(scene.mesh, scene.times[frame], camera.position, ways_of(camera))
        triangle, _ = scene.surface_map(frame)
        assert ((found >= 0) == (triangle.reshape(-1) >= 0)).all()
        assert (found != triangle.reshape(-1)).mean() < 0.005
        depth = scene.depth(frame).reshape(-1)
        hit = found >= 0
        np.testing.assert_allclose(depth[hit], far[hit], atol=1e-6)
        assert np.isinf(depth[~hit]).all()


def test_barycentrics_put_each_pixel_on_its_own_centre(scene: ClipGeometry) -> None:
    triangle, weights = scene.surface_map(2)
    assert triangle.dtype == np.int64 and triangle.shape == (SIZE, SIZE) and weights.shape == (SIZE, SIZE, 3)
    hit = triangle >= 0
    assert 0.05 < hit.mean() < 0.9 and (triangle[~hit] == -1).all() and (weights[~hit] == 0).all()
    np.testing.assert_allclose(weights[hit].sum(-1), 1.0, atol=1e-12)
    assert weights.min() > -1e-12
    corners = scene.mesh.vertices[scene.times[2]][scene.mesh.faces[triangle[hit]]].astype(np.float64)
    pixels, _ = scene.cameras[2].project((corners * weights[hit][..., None]).sum(1))
    row, column = np.nonzero(hit)
    np.testing.assert_allclose(pixels, np.stack([column, row], -1) + 0.5, atol=1e-9)


def test_points_in_every_axes_are_one_place(scene: ClipGeometry) -> None:
    hit = scene.triangles(3) >= 0
    world, own, first = (scene.points(3, axes) for axes in ("world", "camera", "first"))
    assert world.dtype == np.float32 and (world[~hit] == 0).all() and (own[~hit] == 0).all()
    np.testing.assert_allclose(own[hit][:, 2], scene.depth(3)[hit], atol=1e-6)
    back = (own[hit] - scene.cameras[3].w2c_opencv[:3, 3]) @ scene.cameras[3].w2c_opencv[:3, :3]
    np.testing.assert_allclose(back, world[hit], atol=1e-6)
    again = (first[hit] - scene.cameras[0].w2c_opencv[:3, 3]) @ scene.cameras[0].w2c_opencv[:3, :3]
    np.testing.assert_allclose(again, world[hit], atol=1e-6)


def test_flow_is_the_projection_of_the_moved_point_and_its_visibility_the_rays(
    scene: ClipGeometry, sees: Any
) -> None:
    for a, b in ((0, 1), (4, 2)):
        flow, visible = scene.flow(a, b)
        assert flow.dtype == np.float32 and flow.shape == (SIZE, SIZE, 2) and visible.dtype == bool
        triangle, weights = scene.surface_map(a)
        hit = triangle >= 0
        corners = scene.mesh.vertices[scene.times[b]][scene.mesh.faces[triangle[hit]]].astype(np.float64)
        places = (corners * weights[hit][..., None]).sum(1)
        pixels, _ = scene.cameras[b].project(places)
        row, column = np.nonzero(hit)
        expected = pixels - np.stack([column, row], -1) - 0.5
        np.testing.assert_allclose(flow[hit], expected, atol=1e-5)
        truth = sees(scene.mesh, scene.times[b], scene.cameras[b], places, triangle[hit])
        np.testing.assert_array_equal(visible[hit], truth)
        assert 0.2 < truth.mean() < 1.0 and (flow[~hit] == 0).all() and not visible[~hit].any()


def test_flow_to_itself_is_nothing_and_all_of_it_is_seen(scene: ClipGeometry) -> None:
    flow, visible = scene.flow(1, 1)
    assert np.abs(flow).max() < 1e-6
    np.testing.assert_array_equal(visible, scene.triangles(1) >= 0)


def test_there_and_back_is_nothing_where_it_is_seen(scene: ClipGeometry) -> None:
    """The point that frame b sees at the flow's end, found there again, comes back to where it started."""
    flow, visible = scene.flow(0, 1)
    row, column = np.nonzero(visible)
    end = np.stack([column, row], -1) + 0.5 + flow[visible].astype(np.float64)
    tested = 0
    for (y, x), place in list(zip(zip(row, column), end))[::7]:
        # A camera whose pixel's centre is the flow's end sees there what frame a saw.
        b = scene.cameras[1]
        i, j = int(place[1]), int(place[0])
        shifted = Camera(
            b.c2w, b.fl_x, b.fl_y, b.cx - (place[0] - j - 0.5), b.cy - (place[1] - i - 0.5), b.w, b.h
        )
        there = ClipGeometry(scene.mesh, (shifted,), (scene.times[1],))
        back, seen = there.flow(0, 0, other=scene)
        if there.triangles(0)[i, j] != scene.triangles(0)[y, x]:
            continue  # on an edge between two triangles
        tested += 1
        assert seen[i, j]
        np.testing.assert_allclose([j + 0.5, i + 0.5] + back[i, j], [x + 0.5, y + 0.5], atol=1e-3)
    assert tested > 20


def test_camera_and_object_motion_are_the_parts_of_flow(scene: ClipGeometry) -> None:
    still = ClipGeometry(scene.mesh, scene.cameras, (scene.times[0],) * 5)
    fixed = ClipGeometry(scene.mesh, (scene.cameras[0],) * 5, scene.times)
    for other, motion in ((still, "camera"), (fixed, "object")):
        expected, seen = scene.flow(0, 2, other=other)
        flow, visible = scene.flow(0, 2, motion=motion)  # type: ignore[arg-type]
        np.testing.assert_array_equal(flow, expected)
        np.testing.assert_array_equal(visible, seen)


def test_scene_flow_of_a_rigid_body_is_its_twist(scene: ClipGeometry) -> None:
    """Within what quantising may change at both ends."""
    moved = scene.scene_flow(0, 3)
    inner = (scene.triangles(0) >= 0) & (scene.objects(0) == 0)
    start = scene.points(0)[inner].astype(np.float64)
    t = scene.mesh.seconds[3]
    expected = start @ turned(np.radians(40 * t)).T + [0, 0, 0.1 * t] - start
    assert np.abs(moved[inner] - expected).max() <= 4 * np.sqrt(3) * scene.mesh.bound
    assert np.abs(expected).max() > 0.05


def test_warping_by_the_flow_reproduces_an_unshaded_image(make_ball: Any, make_mesh: Any) -> None:
    """Colour is smooth on the surface; read in frame b at the flow's end it is frame a's, above 50 dB."""
    vertices, faces = make_ball(24)
    cameras = orbit(12, size=(128, 128))
    spun = [vertices * 0.4 @ turned(0.1 * t).T for t in range(2)]
    mesh = make_mesh(spun, faces, cameras)
    clip = clip_geometry(mesh, cameras[:2], mesh.seconds)
    images = [0.5 + 0.5 * np.sin(7 * (clip.nocs(f).astype(np.float64) - 0.5)) for f in (0, 1)]
    flow, visible = clip.flow(0, 1)
    back, _ = clip.flow(1, 0)
    row, column = np.nonzero(visible)
    x, y = column + flow[visible][:, 0], row + flow[visible][:, 1]
    x0, y0 = np.floor(x).astype(int).clip(0, 126), np.floor(y).astype(int).clip(0, 126)
    corners = [(y0 + dy, x0 + dx) for dy in (0, 1) for dx in (0, 1)]
    weights = [((y - y0) if dy else 1 - (y - y0)) * ((x - x0) if dx else 1 - (x - x0))
               for dy in (0, 1) for dx in (0, 1)]  # fmt: skip
    whole = np.logical_and.reduce([clip.triangles(1)[c] >= 0 for c in corners])
    spread = np.ptp(np.stack([back[c] for c in corners]), axis=0).max(-1)
    keep = whole & (spread < 1.0)
    warped = sum(w[:, None] * images[1][c] for w, c in zip(weights, corners))
    error = ((warped - images[0][visible])[keep] ** 2).mean()
    assert keep.mean() > 0.6 and -10 * np.log10(error) > 50.0


def test_tracks_follow_the_surface_and_are_seen_as_rays_see_them(scene: ClipGeometry, sees: Any) -> None:
    xyz, pixels, visible = scene.tracks(60, seed=4)
    assert (xyz.shape, pixels.shape, visible.shape) == ((60, 5, 3), (60, 5, 2), (60, 5))
    assert (xyz.dtype, pixels.dtype, visible.dtype) == (np.float32, np.float32, np.bool_)
    again = scene.tracks(60, seed=4)
    other = scene.tracks(60, seed=5)
    np.testing.assert_array_equal(again[0], xyz)
    assert not np.array_equal(other[0], xyz)
    for f, camera in enumerate(scene.cameras):
        found, _ = camera.project(xyz[:, f])
        np.testing.assert_allclose(pixels[:, f], found, atol=2e-4)
    assert 0.1 < visible.mean() < 0.9
    # The triangle of each point, from where it lies at the first time.
    corners = scene.mesh.vertices[scene.times[0]][scene.mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for f in (0, 2):
        own = []
        for point in xyz[:, 0].astype(np.float64):
            off = np.abs(((point - corners[:, 0]) * normals).sum(1)) + 0.1 * np.linalg.norm(
                corners.mean(1) - point, axis=1
            )
            own.append(int(np.argmin(off)))
        truth = sees(scene.mesh, scene.times[f], scene.cameras[f], xyz[:, f], own)
        assert (truth == visible[:, f]).mean() > 0.95  # `own` may be a neighbour's number at an edge


def test_tracks_on_pixels_start_at_their_centres_and_are_seen_there(scene: ClipGeometry) -> None:
    _, pixels, visible = scene.tracks(50, seed=1, on="pixels", frame=2)
    assert visible[:, 2].all()
    np.testing.assert_allclose(pixels[:, 2] % 1.0, 0.5, atol=1e-4)
    assert len(np.unique(pixels[:, 2], axis=0)) == 50
    covered = int((scene.triangles(2) >= 0).sum())
    many = scene.tracks(covered + 3, seed=1, on="pixels", frame=2)[1]
    assert len(np.unique(many[:, 2], axis=0)) == covered


def test_points_are_spread_over_area_not_over_triangles(make_mesh: Any) -> None:
    big = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
    small = [(0, 0, 0.1), (0.1, 0, 0.1), (0, 0.1, 0.1)]
    mesh = make_mesh([big + small], [(0, 1, 2), (3, 4, 5)])
    clip = clip_geometry(mesh, orbit(1), mesh.seconds)
    on_big = clip.tracks(2000, seed=0)[0][:, 0, 2] < 0.05
    assert on_big.mean() > 0.97


def test_a_clip_of_another_action_is_refused(scene: ClipGeometry, make_mesh: Any) -> None:
    mesh = make_mesh([np.eye(3)], [(0, 1, 2)])
    other = clip_geometry(mesh, orbit(1, size=(8, 8)), mesh.seconds)
    with pytest.raises(InputError, match="one action"):
        scene.flow(0, 0, other=other)
    for call in (
        lambda: scene.flow(0, 9),
        lambda: scene.points(0, "view"),  # type: ignore[arg-type]
        lambda: scene.tracks(0),
        lambda: scene.tracks(3, on="edges"),  # type: ignore[arg-type]
        lambda: scene.flow(0, 1, motion="none"),  # type: ignore[arg-type]
        lambda: scene.follow([9999], [[1, 0, 0]]),
        lambda: clip_geometry(scene.mesh, scene.cameras, [0.123] * 5),
    ):
        with pytest.raises(InputError):
            call()


def test_negative_frames_count_from_the_end(scene: ClipGeometry) -> None:
    np.testing.assert_array_equal(scene.surface_map(-1)[0], scene.surface_map(4)[0])


def test_normals_face_the_camera_and_smooth_ones_are_a_balls(scene: ClipGeometry) -> None:
    inner = (scene.triangles(0) >= 0) & (scene.objects(0) == 0)
    away = scene.points(0)[inner] - scene.cameras[0].position
    for smooth in (False, True):
        normals = scene.normals(0, smooth=smooth)
        np.testing.assert_allclose(np.linalg.norm(normals[inner], axis=1), 1.0, atol=1e-5)
        assert (normals[scene.triangles(0) < 0] == 0).all()
        # A ball around the origin: the true normal is the place itself. Triangles lean by up to a row.
        true = scene.points(0)[inner] / np.linalg.norm(scene.points(0)[inner], axis=1, keepdims=True)
        assert (normals[inner] * true).sum(1).min() > (0.99 if smooth else 0.95)
    assert ((scene.normals(0)[inner] * away).sum(1) <= 0).all()


def test_another_size_is_drawn_anew(scene: ClipGeometry) -> None:
    double = scene.resized(2 * SIZE, 2 * SIZE)
    assert double.triangles(0).shape == (2 * SIZE, 2 * SIZE)
    share = (double.triangles(0) >= 0).mean() / (scene.triangles(0) >= 0).mean()
    assert 0.95 < share < 1.05 and scene.resized(SIZE, SIZE) is scene


# What of a surface is drawn ------------------------------------------------------------------------------


def card(make_mesh: Any, materials: Any, **how: Any) -> ClipGeometry:
    """A square that faces the front (-Y), and one of the other material 0.2 behind it, from the front."""
    square = np.array([(-0.3, 0, -0.3), (0.3, 0, -0.3), (0.3, 0, 0.3), (-0.3, 0, 0.3)])
    vertices = np.concatenate([square, square + np.array([0, 0.2, 0])])[None]
    faces = [(0, 1, 2), (0, 2, 3), (4, 5, 6), (4, 6, 7)]
    mesh = make_mesh(vertices, faces, materials=materials, material=np.array([0, 0, 1, 1], np.uint16), **how)
    front = orbit(1, size=(SIZE, SIZE))
    back = [Camera(orbit_c2w(180.0), *front[0].intrinsics)]
    return ClipGeometry(mesh, (*front, *back), (0, 0))


def test_single_sided_and_see_through_surfaces(make_mesh: Any) -> None:
    middle = SIZE // 2
    plain = card(make_mesh, (Material("a"), Material("b")))
    assert plain.materials(0)[middle, middle] == 0 and plain.materials(1)[middle, middle] == 1
    single = card(make_mesh, (Material("a", single_sided=True), Material("b", single_sided=True)))
    assert single.materials(0)[middle, middle] == 0 and single.materials(1)[middle, middle] == -1
    clear = card(make_mesh, (Material("a", see_through=True), Material("b")))
    assert clear.materials(0)[middle, middle] == 1
    # What is seen through hides nothing; what is single-sided hides nothing from behind.
    for clip, seen in ((plain, False), (clear, True)):
        assert clip.follow([2], [[0.2, 0.4, 0.4]])[2][0, 0] == seen
    assert not clear.follow([0], [[0.2, 0.4, 0.4]])[2][0].any()
    assert single.follow([0], [[0.2, 0.4, 0.4]])[2][0].tolist() == [True, False]


def test_alpha_cuts_where_the_texture_says(make_mesh: Any) -> None:
    """The left half of the front square is cut away by a 2 x 1 texture read without mixing."""
    uv = np.array([[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]], np.float32)
    cut = AlphaMap(np.array([[0, 255]], np.uint8), 0.5, "repeat", linear=False)
    clip = card(make_mesh, (Material("a", alpha=0), Material("b")), alpha_maps=(cut,), alpha_uv=uv)
    middle = SIZE // 2
    assert clip.materials(0)[middle, middle - 4 : middle + 4].tolist() == [1] * 4 + [0] * 4
    visible = clip.flow(0, 0)[1]
    assert visible[middle, middle - 4] and visible[middle, middle + 3]
    # A point behind the hole is seen, one behind what is left is not.
    _, _, seen = clip.follow([2, 2], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert seen[:, 0].tolist() == [True, False]
    mesh, _ = decode_mesh(encode_mesh(clip.mesh), "x")
    again = ClipGeometry(mesh, clip.cameras, (0, 0))
    np.testing.assert_array_equal(again.triangles(0), clip.triangles(0))


def test_a_linear_texture_is_mixed_between_texels(make_mesh: Any) -> None:
    """Alpha rises from 0 at u = 1/4 to 1 at u = 3/4, so 0.5 lies at u = 1/2 and 0.75 at 5/8."""
    uv = np.array([[(0, 0), (1, 0), (1, 1)], [(0, 0), (1, 1), (0, 1)]], np.float32)
    shares = {}
    for threshold in (0.5, 0.75):
        cut = AlphaMap(np.array([[0, 255]], np.uint8), threshold, "extend", linear=True)
        clip = card(make_mesh, (Material("a", alpha=0), Material("b")), alpha_maps=(cut,), alpha_uv=uv)
        clip = clip.resized(200, 200)
        row = clip.materials(0)[100]
        square = row[np.flatnonzero(row >= 0)[0] :]
        shares[threshold] = (row == 0).sum() / 83.3  # pixels that the front square is wide
        assert len(square)
    assert abs(shares[0.5] - 0.5) < 0.02 and abs(shares[0.75] - 0.375) < 0.02


def test_objects_come_and_go(make_ball: Any, make_mesh: Any) -> None:
    vertices, faces = make_ball(6)
    shown = np.array([[True], [False]])
    mesh = make_mesh([vertices * 0.4] * 2, faces, shown=shown)
    clip = clip_geometry(mesh, orbit(2, size=(SIZE, SIZE)), mesh.seconds)
    assert (clip.triangles(0) >= 0).any() and not (clip.triangles(1) >= 0).any()
    assert not clip.flow(0, 1)[1].any() and not clip.tracks(5)[2][:, 1].any()
    with pytest.raises(InputError, match="no surface"):
        clip.tracks(5, frame=1)


def test_triangles_that_reach_behind_the_camera_are_drawn_up_to_it(make_mesh: Any, cast: Any) -> None:
    """A floor below a camera that stands on it: nothing is dropped, nothing behind shows."""
    floor = np.array([(-9, -9, 0), (9, -9, 0), (9, 9, 0), (-9, 9, 0.0)])[None]
    mesh = make_mesh(floor, [(0, 1, 2), (0, 2, 3)])
    c2w = orbit_c2w(0.0, 0.0, 1.0)
    c2w[2, 3] = 0.5
    camera = Camera(c2w, 30.0, 30.0, 20.0, 20.0, SIZE, SIZE)
    clip = ClipGeometry(mesh, (camera,), (0,))
    found, far = cast(mesh, 0, camera.position, ways_of(camera))
    seen = clip.triangles(0).reshape(-1)
    # The horizon runs between the rows: every ray below it meets the floor, none above.
    np.testing.assert_array_equal(seen >= 0, found >= 0)
    assert (seen >= 0).sum() > SIZE * (SIZE // 2 - 4)
    np.testing.assert_allclose(clip.depth(0).reshape(-1)[seen >= 0], far[seen >= 0], rtol=1e-5)


def test_random_triangles_are_drawn_and_hidden_as_rays_say(
    make_mesh: Any, cast: Any, sees: Any, seed: int
) -> None:
    """A soup of triangles through the camera's place too."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-1.2, 1.2, (60, 1, 3))
    soup = (centres + rng.normal(0, 0.3, (60, 3, 3))).reshape(1, -1, 3)
    materials = (Material("a"), Material("b", single_sided=True), Material("c", see_through=True))
    mesh = make_mesh(
        soup,
        np.arange(180).reshape(-1, 3),
        materials=materials,
        material=rng.choice(3, 60, p=(0.6, 0.3, 0.1)).astype(np.uint16),
    )
    camera = Camera(orbit_c2w(40.0, 20.0, 1.0), 30.0, 30.0, 20.0, 20.0, SIZE, SIZE)
    clip = ClipGeometry(mesh, (camera,), (0,))
    found, far = cast(mesh, 0, camera.position, ways_of(camera))
    seen = clip.triangles(0).reshape(-1)
    assert (seen != found).mean() < 0.003  # rays along an edge
    same = (seen == found) & (seen >= 0)
    np.testing.assert_allclose(clip.depth(0).reshape(-1)[same], far[same], rtol=1e-5)
    triangles = rng.integers(0, 60, 300)
    weights = rng.dirichlet((1, 1, 1), 300)
    visible = clip.follow(triangles, weights)[2]
    places = (mesh.vertices[0][mesh.faces[triangles]] * weights[..., None]).sum(1)
    truth = sees(mesh, 0, camera, places, triangles)
    assert (truth != visible[:, 0]).sum() == 0 and 10 < truth.sum() < 200


# What is stored of maps -----------------------------------------------------------------------------------


def test_a_map_that_comes_out_otherwise_is_not_handed_out(scene: ClipGeometry) -> None:
    maps = [scene.triangles(f) for f in range(5)]
    stored = decode_maps(encode_maps(maps), "x")
    with_exceptions(maps[1].copy(), stored, 1, len(scene.mesh.faces), "x")
    other = maps[1].copy()
    other[SIZE // 2, SIZE // 2] ^= 1
    with pytest.raises(WorkError, match="frame 1"):
        with_exceptions(other, stored, 1, len(scene.mesh.faces), "x")


def test_exceptions_overwrite_what_is_drawn(scene: ClipGeometry) -> None:
    ours = scene.triangles(0)
    theirs = ours.copy()
    theirs[3:6, 7] = 11
    theirs[SIZE // 2, SIZE // 2] = -1
    stored = decode_maps(encode_maps([theirs], [ours]), "x")
    assert len(stored.exceptions) == 4
    np.testing.assert_array_equal(with_exceptions(ours.copy(), stored, 0, len(scene.mesh.faces), "x"), theirs)
    with pytest.raises(WorkError, match="outside"):
        with_exceptions(ours.copy(), stored, 0, 5, "x")


def test_a_mesh_comes_back_to_the_bit(scene: ClipGeometry) -> None:
    mesh = scene.mesh
    back, header = decode_mesh(encode_mesh(mesh, uid="u"), "x")
    assert header["uid"] == "u" and header["bound"] == mesh.bound and back.materials == mesh.materials
    for name in ("welded", "weld", "faces", "material", "object", "shown", "seconds"):
        np.testing.assert_array_equal(getattr(back, name), getattr(mesh, name))
    assert back.vertices.shape == (5, len(mesh.weld), 3)
