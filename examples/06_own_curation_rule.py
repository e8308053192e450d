"""Curate with rules of your own: thresholds over a preset, and a filter of your own. 30 s.

python examples/06_own_curation_rule.py demo/table.parquet mine.parquet
"""

import sys

import pyarrow.compute as pc
import pyarrow.parquet as pq

from orbit4d.curate import decide, make_rules, measure

source = sys.argv[1] if len(sys.argv) > 1 else "demo/table.parquet"
out = sys.argv[2] if len(sys.argv) > 2 else "mine.parquet"

# Measuring takes Blender; deciding takes numbers. A table that was measured once is decided again in no time.
table = pq.read_table(source) if source.endswith(".parquet") else measure(source)

rules = make_rules("default", overrides={"min_motion": 0.03})
table = decide(table, rules)
counts = table["verdict"].value_counts().to_pylist()
print({row["values"]: row["counts"] for row in counts})

# A rule that is no threshold: at most one action of an asset, the liveliest.
kept = table.filter(pc.equal(table["verdict"], "accepted"))
order = kept.sort_by([("uid", "ascending"), ("motion_geometry", "descending")])
uids = order["uid"].to_pylist()
first = [i for i in range(len(uids)) if i == 0 or uids[i] != uids[i - 1]]
pq.write_table(order.take(first), out)
print(f"{len(first)} of {table.num_rows} actions: {out}")
