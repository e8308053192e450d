"""glTF 2.0 (.glb, .gltf): headers, chunk and accessor bounds, URIs, finite numbers, node tree, images.

Source: Khronos glTF 2.0 specification, sections 3.6 (binary data storage) and 4 (GLB).
"""

from __future__ import annotations

import base64
import io
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from orbit4d.datasets.assets import meshopt
from orbit4d.datasets.assets.gltf_container import split_document, whole_number
from orbit4d.datasets.assets.inspection import LIMITS, BadFile, Budget, Inspection, companion, map_file

#: Bytes of one component, by componentType.
_COMPONENT = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
#: Components of one element, by type.
_ELEMENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_INDEX = {5121: "<u1", 5123: "<u2", 5125: "<u4"}
_FLOAT = 5126
_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
#: What Blender 4.5's importer can serve when a file lists it as required.
_EXTENSIONS = {
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_lights_punctual",
    "KHR_materials_unlit",
    "KHR_texture_transform",
    "KHR_materials_clearcoat",
    "KHR_mesh_quantization",
    "EXT_mesh_gpu_instancing",
    "KHR_draco_mesh_compression",
    "KHR_materials_variants",
    "KHR_materials_emissive_strength",
    "KHR_materials_transmission",
    "KHR_materials_specular",
    "KHR_materials_sheen",
    "KHR_materials_ior",
    "KHR_animation_pointer",
    "KHR_materials_volume",
    "EXT_texture_webp",
    "KHR_materials_anisotropy",
}
#: What is served beside the importer.
_EXTENSIONS |= {"KHR_node_visibility"}
_DRACO = "KHR_draco_mesh_compression"
_BLOCK = 1 << 18


def inspect_gltf(path: str, data: memoryview, name: str) -> Inspection:
    """Raises BadFile; see `orbit4d.datasets.assets.inspect`."""
    doc, binary = split_document(data)
    return _Document(doc, binary, os.path.dirname(os.path.abspath(path)), len(data)).inspect(name)


def open_gltf(path: str) -> _Document:
    """A checked .glb or .gltf, whose accessors can be read. Raises BadFile."""
    data = map_file(path)
    doc, binary = split_document(data)
    found = _Document(doc, binary, os.path.dirname(os.path.abspath(path)), len(data))
    found.inspect("glb")
    return found


def gltf_document(path: str) -> dict[str, Any]:
    """The JSON of a .glb or .gltf. Raises BadFile."""
    return split_document(map_file(path))[0]


def gltf_material_names(path: str) -> set[str]:
    """Names of a file's materials; empty where the file cannot be made out."""
    try:
        return {str(material.get("name")) for material in gltf_document(path).get("materials", [])}
    except (BadFile, AttributeError, TypeError):
        return set()


def gltf_companions(path: str) -> list[str]:
    """Existing files inside the folder that the buffers and images of a .gltf name."""
    doc = gltf_document(path)
    folder = os.path.dirname(os.path.abspath(path))
    found = []
    for key in ("buffers", "images"):
        for entry in doc.get(key, []):
            uri = entry.get("uri")
            if isinstance(uri, str) and not uri.startswith("data:"):
                target = companion(folder, uri, key)
                if os.path.isfile(target) and target not in found:
                    found.append(target)
    return found


class _Document:
    def __init__(self, doc: dict[str, Any], binary: memoryview | None, folder: str, size: int) -> None:
        self.doc, self.folder, self.size = doc, folder, size
        self.lists: dict[str, list[dict]] = {}
        for key in (
            "accessors", "animations", "buffers", "bufferViews", "images", "materials", "meshes", "nodes",
            "scenes", "skins", "textures",
        ):  # fmt: skip
            entries = doc.get(key, [])
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise BadFile("corrupt", f"{key} is no list of objects")
            if len(entries) > LIMITS.entries:
                raise BadFile("absurd", f"{len(entries)} {key}")
            self.lists[key] = entries
        self.budget = Budget()
        self.checked: dict[int, int] = {}
        self.seen_finite: set[int] = set()
        self.seen_indices: set[tuple[int, int]] = set()
        self.binary = binary
        self.packed = False
        """Whether buffer views have to be decompressed: where that is not required, they are plain too."""
        self.buffers: list[memoryview] = []

    def inspect(self, name: str) -> Inspection:
        self._check_extensions()
        missing = self._check_uris()
        self.buffers = [self._buffer(i, entry) for i, entry in enumerate(self.lists["buffers"])]
        self.views = [self._view(i, entry) for i, entry in enumerate(self.lists["bufferViews"])]
        for i in range(len(self.lists["accessors"])):
            self._accessor(i)
        vertices, triangles, draco = self._check_meshes()
        self._check_nodes(vertices)
        for i, skin in enumerate(self.lists["skins"]):
            if "inverseBindMatrices" in skin:
                self._finite(skin["inverseBindMatrices"], f"skin {i} inverseBindMatrices")
            for joint in _entries(skin, "joints", f"skin {i}"):
                self._at("nodes", joint, f"skin {i} joint")
        self._check_animations()
        self._check_images()
        asset = self.doc["asset"]
        extras = asset.get("extras") if isinstance(asset.get("extras"), dict) else {}
        return Inspection(
            format=name,
            bytes=self.size,
            n_animations=len(self.lists["animations"]),
            animation_names=tuple(str(a.get("name", ""))[:200] for a in self.lists["animations"]),
            n_meshes=len(self.lists["meshes"]),
            n_vertices=sum(vertices),
            n_triangles=triangles,
            n_textures=len(self.lists["images"]),
            n_missing_textures=missing,
            n_materials=len(self.lists["materials"]),
            draco=draco,
            title=_text(extras.get("title")),
            # Sketchfab writes "CC-BY-4.0 (http://creativecommons.org/...)" and "name (https://sketchfab.com/name)".
            license=_text(extras.get("license")).partition(" (http")[0]
            or _license_of(_text(asset.get("copyright"))),
            author=(_text(extras.get("author")) or _text(asset.get("copyright"))).partition(" (http")[0],
            source_url=_text(extras.get("source")),
        )

    def _check_extensions(self) -> None:
        required = self.doc.get("extensionsRequired", [])
        names = [str(e)[:60] for e in required] if isinstance(required, list) else []
        unknown = [name for name in names if name not in _EXTENSIONS and name not in meshopt.EXTENSIONS]
        if unknown:
            raise BadFile("extension", f"requires {', '.join(unknown[:4])}")
        for name in names:
            if name in meshopt.EXTENSIONS:
                meshopt.check_available(name)
                self.packed = True

    def _at(self, key: str, index: Any, what: str) -> dict:
        entries = self.lists[key]
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise BadFile("index", f"{what} points at {key}[{str(index)[:20]}] of {len(entries)}")
        return entries[index]

    def _check_uris(self) -> int:
        """Every `uri` anywhere in the document stays inside the folder; the number of absent images."""
        stack: list[Any] = [value for key, value in self.doc.items() if key != "extras"]
        while stack:
            value = stack.pop()
            if isinstance(value, list):
                stack.extend(value)
            elif isinstance(value, dict):
                uri = value.get("uri")
                if isinstance(uri, str) and uri[:5].lower() != "data:":
                    companion(self.folder, uri, "the file")
                stack.extend(v for key, v in value.items() if key != "extras")
        missing = 0
        for image in self.lists["images"]:
            uri = image.get("uri")
            if isinstance(uri, str) and uri[:5].lower() != "data:":
                missing += not os.path.isfile(companion(self.folder, uri, "an image"))
        return missing

    def _buffer(self, i: int, entry: dict) -> memoryview:
        size = whole_number(entry.get("byteLength"), f"buffer {i} byteLength")
        uri = entry.get("uri")
        if uri is None and self.packed and meshopt.packed_view(entry) is not None:
            # Stands in for what the buffer views unpack to; it has no bytes of its own.
            return memoryview(b"")
        if uri is None:
            if i != 0 or self.binary is None:
                raise BadFile("missing", f"buffer {i} has no URI and the file no binary chunk")
            data = self.binary
        elif not isinstance(uri, str):
            raise BadFile("corrupt", f"buffer {i} has a URI that is no text")
        elif uri[:5].lower() == "data:":
            data = memoryview(base64.b64decode(uri.partition(",")[2], validate=False))
        else:
            data = map_file(companion(self.folder, uri, f"buffer {i}"))
        if len(data) < size:
            raise BadFile("truncated", f"buffer {i} has {len(data)} of {size} bytes")
        return data[:size]

    def _view(self, i: int, entry: dict) -> memoryview:
        what = f"bufferView {i}"
        packed = meshopt.packed_view(entry) if self.packed else None
        if packed is not None:
            self._at("buffers", packed.get("buffer"), what)
            self.budget.spend(meshopt.unpacked_size(packed, what))
            return memoryview(meshopt.unpack(packed, self.buffers[packed["buffer"]], what))
        self._at("buffers", entry.get("buffer"), what)
        buffer = self.buffers[entry["buffer"]]
        start = whole_number(entry.get("byteOffset", 0), f"{what} byteOffset")
        size = whole_number(entry.get("byteLength"), f"{what} byteLength")
        # Some exporters write 0 for "packed".
        if entry.get("byteStride"):
            whole_number(entry["byteStride"], f"{what} byteStride", 1, 4096)
        if start + size > len(buffer):
            raise BadFile("header", f"{what} ends at {start + size} of {len(buffer)} bytes")
        return buffer[start : start + size]

    def _accessor(self, i: int) -> int:
        """Check one accessor; its element count."""
        entry, what = self.lists["accessors"][i], f"accessor {i}"
        count = whole_number(entry.get("count"), f"{what} count")
        if count > LIMITS.vertices * 3:
            raise BadFile("absurd", f"{what} counts {count}")
        component, kind = entry.get("componentType"), entry.get("type")
        if component not in _COMPONENT or kind not in _ELEMENTS:
            raise BadFile("header", f"{what} is of type {str(kind)[:10]} of {str(component)[:10]}")
        for bound in ("min", "max"):
            values = entry.get(bound, [])
            if not isinstance(values, list) or not all(
                isinstance(v, int | float) and np.isfinite(float(v)) for v in values
            ):
                raise BadFile("non_finite", f"{what} {bound}")
        size = _COMPONENT[component] * _ELEMENTS[kind]
        if "bufferView" in entry:
            view_entry = self._at("bufferViews", entry["bufferView"], what)
            self._span(entry, view_entry, self.views[entry["bufferView"]], count, size, what)
        sparse = entry.get("sparse")
        if isinstance(sparse, dict):
            n = whole_number(sparse.get("count"), f"{what} sparse count", 0, count)
            for part, width in (("indices", None), ("values", size)):
                inner = sparse.get(part)
                if not isinstance(inner, dict):
                    raise BadFile("header", f"{what} sparse {part}")
                if width is None:
                    width = _COMPONENT.get(inner.get("componentType", 0), 4)
                view_entry = self._at("bufferViews", inner.get("bufferView"), f"{what} sparse {part}")
                view = self.views[inner["bufferView"]]
                self._span(inner, view_entry, view, n, width, f"{what} sparse {part}")
        return count

    @staticmethod
    def _span(entry: dict, view_entry: dict, view: memoryview, count: int, size: int, what: str) -> None:
        start = whole_number(entry.get("byteOffset", 0), f"{what} byteOffset")
        stride = view_entry.get("byteStride") or size
        if count and start + stride * (count - 1) + size > len(view):
            raise BadFile(
                "header", f"{what} needs {start + stride * (count - 1) + size} of {len(view)} bytes"
            )

    def _blocks(self, span: dict, count: int, kind: str, dtype: str) -> Iterator[np.ndarray]:
        """`count` elements of type `kind` where `span` (an accessor, or a part of a sparse one) says they
        lie, [n, components], in pieces."""
        width, item = _ELEMENTS[kind], np.dtype(dtype).itemsize
        self.budget.spend(count * width)
        view = self.views[span["bufferView"]]
        stride = self.lists["bufferViews"][span["bufferView"]].get("byteStride") or width * item
        start = int(span.get("byteOffset", 0))
        for first in range(0, count, _BLOCK):
            n = min(_BLOCK, count - first)
            yield np.ndarray((n, width), dtype, view, start + first * stride, (stride, item))

    def array(self, index: int) -> np.ndarray:
        """Elements of an accessor, [count, components]: float64 of floats and normalised numbers, else int64.

        After `inspect`, which has checked that they lie inside the file.
        """
        entry = self._at("accessors", index, "an accessor")
        count, kind = int(entry["count"]), entry["type"]
        stored = np.dtype(_DTYPES[entry["componentType"]])
        found = np.zeros((count, _ELEMENTS[kind]), stored)
        if "bufferView" in entry and count:
            found[:] = np.concatenate(list(self._blocks(entry, count, kind, stored.str)))
        sparse = entry.get("sparse")
        if isinstance(sparse, dict) and sparse["count"]:
            n, places = int(sparse["count"]), sparse["indices"]
            rows = np.concatenate(list(self._blocks(places, n, "SCALAR", _INDEX[places["componentType"]])))
            if int(rows.max()) >= count:
                raise BadFile("index", f"accessor {index}: a sparse value of {int(rows.max())}")
            found[rows[:, 0]] = np.concatenate(list(self._blocks(sparse["values"], n, kind, stored.str)))
        if stored.kind == "f":
            return found.astype(np.float64)
        if entry.get("normalized"):
            return np.maximum(found / np.iinfo(stored).max, -1.0)
        return found.astype(np.int64)

    def _finite(self, index: Any, what: str) -> int:
        """Check that a float accessor holds finite numbers; its element count."""
        entry = self._at("accessors", index, what)
        count = int(entry["count"])
        if index in self.seen_finite or entry["componentType"] != _FLOAT:
            return count
        self.seen_finite.add(index)
        spans = [(entry, count)] if "bufferView" in entry else []
        if isinstance(entry.get("sparse"), dict):
            spans.append((entry["sparse"]["values"], int(entry["sparse"]["count"])))
        for span, n in spans:
            for block in self._blocks(span, n, entry["type"], "<f4"):
                if not np.isfinite(block).all():
                    raise BadFile("non_finite", what)
        return count

    def _check_meshes(self) -> tuple[list[int], int, bool]:
        """(vertices of each mesh, triangles in all, whether Draco is used)."""
        per_mesh, triangles, stored, draco = [], 0, 0, False
        for m, mesh in enumerate(self.lists["meshes"]):
            total = 0
            for p, primitive in enumerate(_entries(mesh, "primitives", f"mesh {m}")):
                what = f"mesh {m} primitive {p}"
                attributes = primitive.get("attributes") if isinstance(primitive, dict) else None
                if not isinstance(attributes, dict):
                    raise BadFile("corrupt", f"{what} has no attributes")
                for index in attributes.values():
                    self._at("accessors", index, what)
                vertices = (
                    self._finite(attributes["POSITION"], f"{what} POSITION")
                    if "POSITION" in attributes
                    else 0
                )
                total += vertices
                stored += vertices
                for target in _entries(primitive, "targets", what):
                    if isinstance(target, dict) and "POSITION" in target:
                        stored += self._finite(target["POSITION"], f"{what} morph target POSITION")
                corners = vertices
                if "indices" in primitive:
                    corners = self._at("accessors", primitive["indices"], what)["count"]
                    self._check_indices(primitive["indices"], vertices, what)
                mode = primitive.get("mode", 4)
                triangles += corners // 3 if mode == 4 else max(corners - 2, 0) if mode in (5, 6) else 0
                extension = primitive.get("extensions")
                if isinstance(extension, dict) and isinstance(extension.get(_DRACO), dict):
                    draco = True
                    index = extension[_DRACO].get("bufferView")
                    self._at("bufferViews", index, f"{what} Draco")
                    if self.views[index][:5] != b"DRACO":
                        raise BadFile("corrupt", f"{what}: the Draco data does not start with DRACO")
                if stored > LIMITS.vertices or triangles > LIMITS.triangles:
                    raise BadFile("absurd", f"{stored} vertices, {triangles} triangles")
            per_mesh.append(total)
        return per_mesh, triangles, draco

    def _check_indices(self, index: int, vertices: int, what: str) -> None:
        entry = self.lists["accessors"][index]
        if "bufferView" not in entry or (index, vertices) in self.seen_indices:
            return
        self.seen_indices.add((index, vertices))
        if entry["componentType"] not in _INDEX or entry["type"] != "SCALAR":
            raise BadFile("header", f"{what} indices are not whole numbers")
        dtype = _INDEX[entry["componentType"]]
        for block in self._blocks(entry, int(entry["count"]), "SCALAR", dtype):
            if block.size and int(block.max()) >= vertices:
                raise BadFile("index", f"{what} uses vertex {int(block.max())} of {vertices}")

    def _check_nodes(self, vertices: list[int]) -> None:
        nodes = self.lists["nodes"]
        parent: dict[int, int] = {}
        instanced = 0
        for n, node in enumerate(nodes):
            for key, length in (("matrix", 16), ("translation", 3), ("rotation", 4), ("scale", 3)):
                if key in node:
                    numbers = node[key]
                    if not isinstance(numbers, list) or len(numbers) != length:
                        raise BadFile("corrupt", f"node {n} {key}")
                    if not all(isinstance(v, int | float) and abs(v) < 1e30 for v in numbers):
                        raise BadFile("non_finite", f"node {n} {key}")
            if "mesh" in node:
                self._at("meshes", node["mesh"], f"node {n}")
                instanced += vertices[node["mesh"]]
            if "skin" in node:
                self._at("skins", node["skin"], f"node {n}")
            for child in _entries(node, "children", f"node {n}"):
                self._at("nodes", child, f"node {n} child")
                if child in parent:
                    raise BadFile("graph", f"node {child} has two parents")
                parent[child] = n
        if instanced > LIMITS.vertices:
            raise BadFile("absurd", f"{instanced} vertices with instances")
        # With at most one parent a node, whatever is not reached from a root lies on a cycle.
        reached, stack = 0, [n for n in range(len(nodes)) if n not in parent]
        while stack:
            reached += 1
            stack.extend(nodes[stack.pop()].get("children", []))
        if reached != len(nodes):
            raise BadFile("graph", "the node tree has a cycle")
        for s, scene in enumerate(self.lists["scenes"]):
            for root in _entries(scene, "nodes", f"scene {s}"):
                self._at("nodes", root, f"scene {s}")

    def _check_animations(self) -> None:
        for a, animation in enumerate(self.lists["animations"]):
            samplers = _entries(animation, "samplers", f"animation {a}")
            for s, sampler in enumerate(samplers):
                what = f"animation {a} sampler {s}"
                if not isinstance(sampler, dict):
                    raise BadFile("corrupt", what)
                times = self._finite(sampler.get("input"), f"{what} key times")
                values = self._finite(sampler.get("output"), f"{what} key values")
                if values < times:
                    raise BadFile("header", f"{what} has {times} times for {values} values")
            for channel in _entries(animation, "channels", f"animation {a}"):
                target = channel.get("target") if isinstance(channel, dict) else None
                if not isinstance(target, dict):
                    raise BadFile("corrupt", f"animation {a} has a channel without target")
                index = channel.get("sampler")
                if not isinstance(index, int) or not 0 <= index < len(samplers):
                    raise BadFile("index", f"animation {a} uses sampler {str(index)[:20]} of {len(samplers)}")
                if "node" in target:
                    self._at("nodes", target["node"], f"animation {a}")

    def _check_images(self) -> None:
        from PIL import Image

        for i, entry in enumerate(self.lists["images"]):
            uri = entry.get("uri")
            if "bufferView" in entry:
                self._at("bufferViews", entry["bufferView"], f"image {i}")
                data = bytes(self.views[entry["bufferView"]][: 1 << 20])
            elif isinstance(uri, str) and uri[:5].lower() == "data:":
                data = base64.b64decode(uri.partition(",")[2][: 1 << 20])
            elif isinstance(uri, str) and os.path.isfile(target := companion(self.folder, uri, f"image {i}")):
                with open(target, "rb") as file:
                    data = file.read(1 << 20)
            else:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with Image.open(io.BytesIO(data)) as image:
                        width, height = image.size
            except Image.DecompressionBombError as error:
                raise BadFile("absurd", f"image {i}: {error}") from None
            except Exception:
                # An image PIL cannot name (KTX2, DDS, damaged) is at worst a missing texture.
                continue
            if width * height > LIMITS.image_pixels:
                raise BadFile("absurd", f"image {i} has {width} x {height} pixels")


def _entries(entry: dict, key: str, what: str) -> list:
    values = entry.get(key, [])
    if not isinstance(values, list):
        raise BadFile("corrupt", f"{what} {key} is no list")
    return values


def _license_of(copyright: str) -> str:
    """The Creative Commons licence that Khronos' samples name at the head of asset.copyright, or ""."""
    match = re.match(r"(CC0|CC[- ]BY(?:-[A-Z]{2})*)[- ]?(\d\.\d)?\b", copyright)
    return "" if match is None else "-".join(filter(None, (match[1].replace(" ", "-"), match[2])))


def _text(value: Any) -> str:
    return " ".join(value.split())[:500] if isinstance(value, str) else ""
