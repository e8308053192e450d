"""Published benchmarks by layout, with published rows beside ours where the protocol is equal."""
