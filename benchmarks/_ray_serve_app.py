"""The server on a Ray cluster of its own: `python _ray_serve_app.py MODEL PORT REPLICAS`."""

import os
import signal
import sys
import tempfile
import threading

import ray

from whichcar.scale.serve import RaySettings, run

if __name__ == "__main__":
    model, port, replicas = sys.argv[1:]
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryDirectory(prefix="ray_") as folder:
        ray.init(num_cpus=int(replicas), include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        run(RaySettings(model=model, replicas=int(replicas)), port=int(port), blocking=False)
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        print(f"http://127.0.0.1:{port}", flush=True)
        ended.wait()
        ray.serve.shutdown()
        ray.shutdown()
