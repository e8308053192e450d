"""The parts of the demo's page as HTML. Names come from files, so every text is escaped."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import Any

from orbit4d.app.gallery.charts import Line, chart, smoothed
from orbit4d.app.gallery.material import Material

RIG_NAMES = {"dynamic_orbit": "Orbit", "static_orbit": "Frozen", "front_view": "Front"}
#: What a card shows: its cameras, and what the geometry beside the moving orbit gives.
LOOP_NAMES = {**RIG_NAMES, "depth": "Depth", "flow": "Flow", "tracks": "Tracks", "skeleton": "Bones"}
#: Reason code -> (what it means, measure that decided, rule that set the threshold).
REASONS = {
    "static": ("This action never moves.", None, None),
    "low_motion": ("It moves too little to learn motion from.", "motion_geometry", "min_motion"),
    "drastic": ("It moves too violently.", "motion_geometry", "max_motion"),
    "flies_away": ("It leaves the place where it starts.", "union_growth", "max_growth"),
    "boundary": ("It reaches out of the frame.", "out_of_frame", "max_boundary"),
    "empty": ("Next to nothing of the frame is covered.", "coverage_mean", "min_coverage"),
    "exploded": ("Its skin tears apart.", "torn_edges", "max_torn"),
    "bad_file:truncated": ("The file ends before it should; Blender never saw it.", None, None),
}
MEASURE_NAMES = {
    "motion_geometry": "motion",
    "union_growth": "growth",
    "out_of_frame": "outside",
    "coverage_mean": "coverage",
    "torn_edges": "torn",
}


def _section(name: str, title: str, lead: str, body: str) -> str:
    return f'<section id="{name}"><header><h2>{title}</h2><p>{lead}</p></header>{body}</section>\n'


def _facts(pairs: list[tuple[str, Any]]) -> str:
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in pairs
        if value not in (None, "")
    )
    return f'<dl class="facts">{rows}</dl>'


def number(value: Any, digits: int = 3) -> str:
    """A short number for people: 0.0123, 1.4, 24, 1.2e-05."""
    if not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value)}"
    return f"{value:.{digits - 1}g}" if abs(value) < 1 else f"{value:.{digits}g}"


def plural(count: int, noun: str) -> str:
    """'1 clip', '3 clips'."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def clock(seconds: float) -> str:
    """'42 s' or '3 min 05 s'."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60:02d} s"


def hero(m: Material) -> str:
    """Title, the figures of the run, and a bar of where the time went."""
    stages = m.record.get("stages", [])
    total = sum(stage["seconds"] for stage in stages)
    accepted = sum(row["verdict"] == "accepted" for row in m.rows)
    figures = [
        (len({row["uid"] for row in m.rows}), "assets built"),
        (accepted, "actions accepted"),
        (len(m.rows) - accepted, "turned away"),
        (m.dataset.get("frames"), "frames rendered"),
        (m.log[-1]["step"] if m.log else None, "training steps"),
        (m.scene.get("metrics", {}).get("n_gaussians"), "Gaussians"),
    ]
    cells = "".join(
        f"<div><b>{value:,}</b>{escape(name)}</div>"
        for value, name in figures
        if isinstance(value, int) and value
    )
    parts = "".join(
        f'<li style="flex-grow:{max(stage["seconds"], 0.02 * total):.2f}" title="{escape(stage["title"])}, '
        f'{clock(stage["seconds"])}"><i></i>'
        f"<span>{escape(stage['title'])}</span><em>{clock(stage['seconds'])}</em></li>"
        for stage in stages
        if stage["name"] != "gallery"
    )
    return (
        '<header class="hero"><p class="eyebrow">orbit4d</p>'
        "<h1>Animated 3D assets in, explicit 4D out</h1>"
        '<p class="lead">Everything on this page was made on this machine by one command: the models, the '
        "clips, the trained network and the reconstruction. Nothing was downloaded.</p>"
        f'<div class="figures">{cells}</div>'
        f'<ol class="ribbon" aria-label="Time per stage">{parts}</ol></header>\n'
    )


def clips(m: Material) -> str:
    """A card for every accepted action, with its three cameras."""
    if not m.clips:
        return ""
    measured = {(row["uid"], row.get("action_index")): row for row in m.rows}
    cards = "".join(_card(i, clip, measured) for i, clip in enumerate(m.clips))
    return _section(
        "clips",
        "The clips",
        "One camera circles while the object moves, one circles it frozen at its start, one looks at "
        "it from the front. All three share scale, window and lights.",
        f'<div class="cards">{cards}</div>',
    )


def _card(i: int, clip: dict[str, Any], measured: dict[Any, dict[str, Any]]) -> str:
    row = measured.get((clip["uid"], clip["action_index"]), {})
    rigs = [rig for rig in LOOP_NAMES if rig in clip["loops"]]
    title = clip["uid"] + (f" · {clip['action']}" if clip["action"] else "")
    inputs = labels = views = ""
    for k, rig in enumerate(rigs):
        checked = " checked" if k == 0 else ""
        inputs += f'<input type="radio" name="card{i}" id="card{i}-{k}"{checked}>'
        labels += f'<label for="card{i}-{k}">{LOOP_NAMES[rig]}</label>'
        views += _loop(clip["loops"][rig], f"{title}, {LOOP_NAMES[rig].lower()}", clip)
    measures = clip.get("measures") or {}
    seconds = clip["window_end"] - clip["window_start"]
    numbers = _facts(
        [
            ("motion", number(measures.get("motion_geometry", row.get("motion_geometry")))),
            ("m", number(measures.get("motion_magnitude"))),
            ("covers", f"{measures['coverage']:.0%}" if measures.get("coverage") is not None else ""),
            ("window", f"{seconds:.2f} s"),
        ]
    )
    caption = f'<p class="caption">{escape(clip["caption"])}</p>' if clip.get("caption") else ""
    return (
        f'<article class="card">{inputs}<div class="stage">{views}</div><nav>{labels}</nav>'
        f"<h3>{escape(title)}</h3>{caption}{numbers}</article>"
    )


def _loop(path: str, text: str, clip: dict[str, Any]) -> str:
    still = f"{path.removesuffix('.webp')}-still.webp"
    return (
        f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{escape(still)}">'
        f'<img src="{escape(path)}" alt="{escape(text)}" width="{clip["width"]}" height="{clip["height"]}">'
        "</picture>"
    )


def rejected(m: Material) -> str:
    """What curation turned away, with the reasons and the numbers behind them."""
    rows = [row for row in m.rows if row["verdict"] != "accepted"]
    if not rows:
        return ""
    counts = Counter(reason for row in rows for reason in row["reasons"] or [row["verdict"]])
    chips = "".join(
        f"<span class='chip'>{escape(name)} <b>{count}</b></span>" for name, count in counts.most_common()
    )
    items = "".join(_turned_away(row, m.rules) for row in rows)
    link = '<a href="report/index.html">curation report</a>'
    report = f'<p class="soft">Every measure with its threshold: {link}.</p>'
    return _section(
        "rejected",
        "Turned away",
        "Decided from geometry before any frame was path traced. Every input is accounted for.",
        f'<p class="chips">{chips}</p><ul class="away">{items}</ul>{report}',
    )


def _turned_away(row: dict[str, Any], rules: dict[str, Any]) -> str:
    reasons = row["reasons"] or [row["verdict"]]
    texts, numbers = [], []
    for reason in reasons:
        text, measure, rule = REASONS.get(reason, ("", None, None))
        if reason == "static" and not row.get("action"):
            text = "It has no animation."
        texts.append(text)
        if measure and row.get(measure) is not None:
            bound = rules.get(rule) if rule else None
            side = "at least" if str(rule).startswith("min") else "at most"
            limit = f", {side} {number(bound)} is asked for" if isinstance(bound, int | float) else ""
            numbers.append(f"{MEASURE_NAMES.get(measure, measure)} {number(row[measure])}{limit}")
    if row.get("detail"):
        numbers.append(str(row["detail"]))
    picture = (
        f'<img src="{escape(row["thumb"])}" alt="{escape(row["uid"])}">'
        if row["thumb"]
        else '<span class="blank" aria-hidden="true">no image</span>'
    )
    title = row["uid"] + (f" · {row['action']}" if row.get("action") else "")
    codes = "".join(f"<code>{escape(reason)}</code>" for reason in reasons)
    return (
        f"<li>{picture}<div><h3>{escape(title)} {codes}</h3><p>{escape(' '.join(filter(None, texts)))}</p>"
        f'<p class="soft">{escape("; ".join(numbers))}</p></div></li>'
    )


def dataset(m: Material) -> str:
    """Counts, bytes and digest of the dataset."""
    if not m.dataset:
        return ""
    d = m.dataset
    width, height, frames = d["size"]
    account = next(
        (
            line
            for stage in m.record["stages"]
            if stage["name"] == "render"
            for line in stage["lines"]
            if line.startswith("input ")
        ),
        "",
    )
    body = _facts(
        [
            ("assets", d["assets"]),
            ("clips", d["clips"]),
            ("frames", f"{d['frames']:,}"),
            ("frame", f"{width} × {height} RGBA, lossless WebP"),
            ("frames a clip", frames),
            ("shards", f"{d['shards']} ({d['bytes'] / 2**20:.1f} MiB of tar)"),
            ("accounted for", account),
            ("made with", ", ".join(f"{k} {v}" for k, v in sorted(d["software"].items()))),
        ]
    )
    digest = (
        f'<p class="digest"><span>digest</span><code>{escape(d["digest"])}</code></p>' if d["digest"] else ""
    )
    return _section(
        "dataset",
        "The dataset",
        "WebDataset shards with a Parquet index. The digest depends on images, cameras and times "
        "alone: a run with other workers, restarts or shard sizes gives the same one.",
        f'<div class="panel">{body}{digest}</div>',
    )


def training(m: Material) -> str:
    """The loss curve, stage by stage."""
    rows = [row for row in m.log if isinstance(row.get("loss"), int | float)]
    if not rows:
        return ""
    names = list(dict.fromkeys(str(row.get("stage", "training")) for row in rows))
    lines = []
    for name, kind in zip(names, "ab" * len(names)):
        part = [row for row in rows if str(row.get("stage", "training")) == name]
        x, y = [row["step"] for row in part], [float(row["loss"]) for row in part]
        lines += [Line("", x, y, f"{kind} faint"), Line(f"{name} stage", x, smoothed(y), kind)]
    curve = chart(lines, "step", "loss", "Training loss per step", log_y=True)
    model, optim = m.model.get("model", {}), m.model.get("optim", {})
    data = m.model.get("data", {})
    size, frames = data.get("resolution"), data.get("frames")
    facts = _facts(
        [
            ("preset", m.model.get("preset")),
            ("variant", model.get("variant")),
            ("clips of", f"{frames} × {size} × {size}" if size and frames else ""),
            ("steps", rows[-1]["step"]),
            ("batch", optim.get("effective_batch")),
            ("learning rate", optim.get("lr")),
            ("time", clock(rows[-1]["seconds"]) if "seconds" in rows[-1] else ""),
        ]
    )
    return _section(
        "training",
        "Training",
        "A small network of the same classes as the full one, conditioned on camera and motion magnitude. "
        "First it learns still orbits, then orbits in motion.",
        f'<div class="split"><figure>{curve}</figure><div class="panel">{facts}</div></div>',
    )


def _video(path: str, text: str, cls: str = "") -> str:
    return (
        f'<video class="{cls}" src="{escape(path)}" autoplay muted loop playsinline preload="auto" '
        f'aria-label="{escape(text)}"></video>'
    )


def motion(m: Material) -> str:
    """The same image animated twice."""
    if not m.motion:
        return ""
    tiles = ""
    if m.motion["input"]:
        tiles += (
            '<figure><div class="stage white">'
            f'<img src="{escape(m.motion["input"])}" alt="input image"></div>'
            "<figcaption>the input, one image</figcaption></figure>"
        )
    for level in m.motion["levels"]:
        asked = level["about"].get("motion")
        amount = f", m = {number(asked)}" if isinstance(asked, int | float) else ""
        crisp = "crisp" if m.motion["size"] < 128 else ""
        tiles += (
            '<figure><div class="stage white">'
            f"{_video(level['video'], level['name'] + ' motion', crisp)}</div>"
            f"<figcaption>{level['name']} motion{escape(amount)}</figcaption></figure>"
        )
    seconds = m.log[-1].get("seconds") if m.log else None
    trained = f" after {clock(seconds)} of training" if seconds else ""
    apart = m.motion["apart"]
    note = f" The two differ by a mean squared {number(apart)}." if apart is not None else ""
    return _section(
        "motion",
        "Motion, low against high",
        f"Same image, same seed, same cameras; only the motion magnitude asked for differs. "
        f"{m.motion['frames']} frames of {m.motion['size']} pixels{trained}: a sketch, not the full model."
        f"{note}",
        f'<div class="tiles three">{tiles}</div>',
    )


def scene(m: Material) -> str:
    """Film of the reconstruction beside the frames it never saw."""
    if not m.scene:
        return ""
    metrics = m.scene["metrics"]
    tiles = ""
    for path, text in ((m.scene["truth"], "ground truth"), (m.scene["film"], "reconstruction")):
        if path:
            tiles += (
                f'<figure><div class="stage white">{_video(path, text, "paired")}</div>'
                f"<figcaption>{text}</figcaption></figure>"
            )
    curve = ""
    if m.scene.get("psnr"):
        values = m.scene["psnr"]
        mean = sum(values) / len(values)
        curve = (
            "<figure>"
            + chart(
                [Line("", range(len(values)), values)], "frame", "PSNR, dB", "PSNR of each frame of the film"
            )
            + f"<figcaption>film against ground truth, {mean:.1f} dB on the mean</figcaption></figure>"
        )

    def decibel(value: Any) -> str:
        return f"{value:.1f} dB" if isinstance(value, int | float) else ""

    facts = [
        ("training views", decibel(metrics.get("psnr_train"))),
        ("still orbit", decibel(metrics.get("psnr_static"))),
        ("views never seen", decibel(metrics.get("psnr_heldout"))),
        ("SSIM there", number(metrics.get("ssim_heldout"))),
        ("Gaussians", metrics.get("n_gaussians")),
        ("time", clock(metrics["seconds"]) if "seconds" in metrics else ""),
    ]
    for name, value in (metrics.get("baselines") or {}).items():
        score = value.get("psnr") if isinstance(value, dict) else value
        facts.append((f"baseline {name}".replace("_", " "), decibel(score)))
    return _section(
        "scene",
        "Back to 4D",
        f"An orbit of {escape(m.scene.get('subject') or 'one asset')} became Gaussians that move. After its "
        "first frame, the front view below was never shown to the optimiser.",
        f'<div class="split"><div class="tiles two">{tiles}</div>'
        f'<div>{curve}<div class="panel">{_facts(facts)}</div></div></div>',
    )


def commands(m: Material) -> str:
    """What was run, and how long each took."""
    stages = m.record.get("stages", [])
    if not stages:
        return ""
    rows = "".join(
        f"<tr><th>{escape(stage['title'])}</th><td>"
        + (f"<code>{escape(stage['command'])}</code>" if stage["command"] else "")
        + f"<p>{escape(stage['outcome'])}</p></td><td class='n'>{stage['seconds']:.1f} s</td></tr>"
        for stage in stages
        if stage["name"] != "gallery"
    )
    total = sum(stage["seconds"] for stage in stages)
    return _section(
        "commands",
        "The commands",
        "Run any of them again by hand; finished work is not done twice.",
        f"<table><tbody>{rows}</tbody><tfoot><tr><th>all</th><td></td><td class='n'>{total:.1f} s</td></tr>"
        "</tfoot></table>",
    )
