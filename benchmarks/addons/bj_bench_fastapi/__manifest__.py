{
    "name": "FastAPI peer of the inbound benchmark",
    "summary": "The benchmark's operations as an app of OCA's fastapi; for benchmarks only",
    "version": "19.0.1.0.0",
    "category": "Hidden",
    "author": "BJ",
    "license": "LGPL-3",
    "depends": ["fastapi", "bj_bench_peers"],
    "installable": True,
}
