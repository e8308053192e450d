"""`orbit4d status --html`: one page of its own, which the browser loads again by itself."""

from __future__ import annotations

import time
from html import escape

from orbit4d.datasets.operations.status import RETRY, Status, headline, pace

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.2rem; overflow-wrap: anywhere; }
.bar { display: flex; height: 1.4rem; border-radius: .3rem; overflow: hidden; background: #8883; }
.done { background: #2a8f4f; } .rejected { background: #b8860b; } .quarantined { background: #b23b3b; }
.key span { display: inline-block; width: .8em; height: .8em; border-radius: .2em; margin: 0 .3em 0 1em; }
.key span:first-child { margin-left: 0; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
tr { border-bottom: 1px solid #8884; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.uid { overflow-wrap: anywhere; font: .85rem/1.8 ui-monospace, monospace; }
.holding { border-left: .3rem solid #b23b3b; padding-left: .7rem; }
pre { overflow-x: auto; background: #8882; padding: .5rem; font-size: .8rem; }
.small { color: #888; font-size: .85rem; }
"""


def status_page(status: Status, refresh_s: float = 10.0) -> str:
    """The page's HTML; it loads itself again every `refresh_s` seconds while a driver is running."""
    live = status.alive
    again = f'<meta http-equiv="refresh" content="{max(1, round(refresh_s))}">' if live else ""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(status.at))
    title = escape(status.dataset)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
{again}<title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>{escape(headline(status))}</p>
{_bar(status)}
{_holding(status)}<p>{escape(pace(status))}</p>
{_reasons(status)}
{_quarantined(status)}
<p class="small">orbit4d status at {stamp} UTC{"; this page loads again by itself" if live else ""}</p>
</body></html>
"""


def _bar(status: Status) -> str:
    counts = {"done": status.done, "rejected": status.rejected, "quarantined": len(status.quarantined)}
    run = status.run
    left = run.left if run is not None else 0
    total = max(1, sum(counts.values()) + left)
    spans = "".join(
        f'<div class="{name}" style="width:{100 * count / total:.3f}%"></div>'
        for name, count in counts.items()
    )
    key = "".join(f'<span class="{name}"></span>{name} {count:,}' for name, count in counts.items())
    more = f" &middot; {left:,} to go" if left else ""
    inputs = f" of {run.input:,} inputs" if run is not None and run.input else ""
    shards = f"{status.committed:,} in shards, {status.staged:,} staged"
    return f'<div class="bar">{spans}</div><p class="key">{key}{more}{inputs} ({shards})</p>'


def _holding(status: Status) -> str:
    """What holds a running driver up."""
    message = status.run.message if status.run is not None and status.alive else ""
    return f'<p class="holding">{escape(message)}</p>\n' if message else ""


def _reasons(status: Status) -> str:
    rows = [(f"rejected {reason}", count) for reason, count in status.reasons.items()]
    if status.actions_left_out:
        rows.append(("actions reported and not rendered", status.actions_left_out))
    if not rows:
        return ""
    body = "".join(f'<tr><td>{escape(text)}</td><td class="number">{n:,}</td></tr>' for text, n in rows)
    return f"<table>{body}</table>"


def _quarantined(status: Status) -> str:
    if not status.quarantined:
        return ""
    body = ""
    for row in status.quarantined:
        log = f"<details><summary>log</summary><pre>{escape(row.log_tail)}</pre></details>"
        body += (
            f'<tr><td class="uid">{escape(row.uid)}</td><td>{escape(row.reason)}</td>'
            f'<td class="number">{row.attempts}</td><td class="number">{row.preemptions}</td>'
            f"<td>{escape(row.detail)}{log if row.log_tail else ''}</td></tr>"
        )
    head = "<tr><th>asset</th><th>reason</th><th>attempts</th><th>preemptions</th><th>detail</th></tr>"
    return f"<p>{len(status.quarantined)} quarantined: {escape(RETRY)}</p><table>{head}{body}</table>"
