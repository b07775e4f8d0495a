"""The server's handler as an application of LitServe: `python _litserve_app.py MODEL PORT WORKERS`."""

import sys
from typing import Any

from fastapi import Request
from litserve import LitAPI, LitServer

from whichcar.serving.handler import Handler
from whichcar.serving.settings import Job, ServerSettings, WorkerSetup


class Api(LitAPI):
    """One image a call, as the other servers have it too."""

    model = ""

    def setup(self, device: str) -> None:
        """Load the model, in a worker."""
        self.handler = Handler(WorkerSetup(self.model, None, None, None, ServerSettings().max_pixels))

    def decode_request(self, request: Request) -> Job:
        """Take the image from the form."""
        return Job("image", request["image"].file.read())

    def predict(self, x: Job) -> dict[str, Any]:
        """Classify it."""
        return self.handler.rows([x])[0]

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """Answer as the other servers do."""
        return {"images": [output]}


if __name__ == "__main__":
    model, port, workers = sys.argv[1:]
    Api.model = model
    api = Api()
    api.model = model
    timeout = ServerSettings().timeout
    server = LitServer(api, "cpu", workers_per_device=int(workers), timeout=timeout, restart_workers=True)
    print(f"http://127.0.0.1:{port}", flush=True)
    server.run(host="127.0.0.1", port=int(port), num_api_servers=1, generate_client_file=False, log_level="warning")
