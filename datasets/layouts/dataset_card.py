"""A Hugging Face dataset card (README.md) for a dataset."""

from __future__ import annotations

from orbit4d.datasets.index.index import Index
from orbit4d.datasets.operations.stats import statistics
from orbit4d.datasets.store.schema import INDEX_SCHEMA

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
#: Licences by the names the hub knows; others are "other".
_HUB_LICENCES = {"CC0-1.0": "cc0-1.0", "CC-BY-4.0": "cc-by-4.0", "CC-BY-SA-4.0": "cc-by-sa-4.0"}


def card(dataset: str) -> str:
    """Markdown with the hub's front matter, the counts, the licences and the schema."""
    numbers = statistics(dataset)
    index = Index(dataset)
    size = next((name for limit, name in _SIZES if numbers["clips"] < limit), "1M<n<10M")
    licences = sorted({_HUB_LICENCES.get(name, "other") for name in numbers["licences"]}) or ["other"]
    lines = ["---", "license:", *(f"- {name}" for name in licences)]
    lines += ["task_categories:", "- text-to-video", "- image-to-video", "- text-to-3d", "- image-to-3d"]
    lines += ["tags:", "- 4d", "- orbit4d", "- webdataset", "size_categories:", f"- {size}"]
    lines += ["configs:", "- config_name: index", "  data_files: index/*.parquet", "---", ""]
    lines += ["# Orbit clips of animated 3D assets", ""]
    lines += [
        f"{numbers['clips']:,} clips of {numbers['assets']:,} assets ({numbers['actions']:,} actions), "
        f"{numbers['frames']:,} frames, {numbers['bytes'] / 1e9:.3f} GB in {numbers['shards']:,} tar shards. "
        "Frames are straight RGBA, lossless WebP; cameras are camera-to-world matrices with OpenGL axes in a "
        "world with +Z up, the object at the origin and its front towards -Y.",
        "",
    ]
    for title in ("rigs", "sizes", "splits", "licences"):
        lines += [f"| {title} | |", "|---|---|"]
        lines += [f"| {name} | {count:,} |" for name, count in numbers[title].items()] + [""]
    lines += [_benchmarks(numbers["benchmarks"], numbers["benchmarks_in_train"]), ""]
    lines += ["## Read it", "", "```python", "from orbit4d.datasets import OrbitDataset"]
    lines += ['data = OrbitDataset("path/or/uri", split="train")', "```", ""]
    lines += ["The shards are plain WebDataset; `index/*.parquet` has one row per clip:", ""]
    lines += ["| column | type | meaning |", "|---|---|---|"]
    for field in INDEX_SCHEMA:
        kind = str(field.type).replace("|", "\\|")
        kind = kind if len(kind) < 60 else kind.split("<")[0]
        lines.append(f"| {field.name} | {kind} | {field.metadata[b'description'].decode()} |")
    lines += ["", f"Schema version {index.manifest.schema_version}. Made with orbit4d.", ""]
    return "\n".join(lines)


def _benchmarks(listed: dict[str, int], in_train: dict[str, int]) -> str:
    """One sentence on objects of published benchmarks."""
    if not listed:
        return (
            "No asset is listed as an object of a published benchmark (ObjaverseDy, Motion-80, ActionBench)."
        )
    parts = [f"{count:,} of {name} ({in_train.get(name, 0):,} in train)" for name, count in listed.items()]
    names = ", ".join(parts)
    return f"Objects of published benchmarks: {names}. Do not train on what you test with them."
