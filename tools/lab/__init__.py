"""The lab: benchmarks, crash loop, recorded conversations, the demo. For work on kvstore itself; not installed."""
