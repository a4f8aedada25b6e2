"""A program without asyncio: views that spawn and wait by blocking, and a worker in a process of its own.

Run it: python examples/flask_style_sync.py
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from piecework import JobId, Jobs

jobs = Jobs()


@jobs.job
def thumbnail(path: str, width: int = 100) -> str:
    return f"{path.removesuffix('.png')}-{width}.png"


# In Flask: @app.post("/uploads"). It answers at once.
def upload(path: str) -> JobId:
    return thumbnail.spawn_sync(path).id


# In Flask: @app.get("/uploads/<uuid:id>"). It waits, for as long as a request may take.
def show(id: JobId) -> str:
    return thumbnail.handle(id).result_sync(timeout=timedelta(seconds=60))


def serve() -> None:
    """Handle requests in threads, as a WSGI server does. All of them may use the one `jobs`."""
    with jobs, ThreadPoolExecutor(4) as threads:
        ids = list(threads.map(upload, ["ada.png", "grace.png", "mary.png"]))
        for shown in threads.map(show, ids):
            print(shown)


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:  # or, on the command line: piecework worker flask_style_sync:jobs
        jobs.run_worker()
    else:
        worker = subprocess.Popen([sys.executable, __file__, "worker"])
        try:
            serve()
        finally:
            worker.terminate()
            print("the worker has drained:", worker.wait())
