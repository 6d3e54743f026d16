{
    "name": "Peers of the inbound benchmark",
    "summary": "What a developer would write by hand, to compare with; for benchmarks only",
    "version": "19.0.1.0.0",
    "category": "Hidden",
    "author": "BJ",
    "license": "LGPL-3",
    "depends": ["mail"],
    "installable": True,
}
