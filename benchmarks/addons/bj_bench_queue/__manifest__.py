{
    "name": "Peer of the outbound benchmark: a job that posts",
    "version": "19.0.1.0.0",
    "license": "LGPL-3",
    "author": "bj_api_sync",
    "depends": ["bj_api_sync", "queue_job"],
    "installable": True,
}
