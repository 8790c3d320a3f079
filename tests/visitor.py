"""A person's browser without a browser: requests to a running web program, with its cookie and token."""

import http.client
import re
import time
from contextlib import contextmanager
from urllib.parse import urlencode

from sentinel.config import Config
from sentinel.monitor.metrics import StageHistograms
from sentinel.web.server import serve
from sentinel.web.session import new_link


class Browser:
    """Sends requests to a web program on loopback."""

    def __init__(self, port, store=None, name=""):
        self.port, self.cookie, self.token = port, "", ""
        if name:
            self.log_in(new_link(store, name))

    def request(self, method, path, fields=(), **headers):
        """Return status, headers and text of a reply. A header of the value None is left out."""
        ours = {"Host": f"127.0.0.1:{self.port}", "Origin": f"http://127.0.0.1:{self.port}", "Cookie": self.cookie}
        sent = ours | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True)
            body = urlencode(fields, doseq=True).encode() if fields else b""
            for name, value in (sent | ({"Content-Length": str(len(body))} if method == "POST" else {})).items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, reply.headers, reply.read().decode()
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, **headers)

    def post(self, path, fields=(), **headers):
        return self.request("POST", path, {"token": self.token} | dict(fields), **headers)

    def until_it_answers(self, process, seconds=60):
        """Wait for a program that starts."""
        end = time.monotonic() + seconds
        while True:
            try:
                return self.get("/healthz")
            except ConnectionError:
                assert process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.1)

    def log_in(self, code):
        status, headers, _ = self.request("POST", "/login", {"code": code})
        if status == 303:
            self.cookie = headers["Set-Cookie"].partition(";")[0]
            self.token = re.search('data-token="([0-9a-f]+)"', self.get("/login")[2])[1]
        return status


@contextmanager
def desk_of(store, tmp_path, **web):
    """Serve the pages of a store; give its port."""
    (tmp_path / "var").mkdir(exist_ok=True)
    config = Config(state_dir=tmp_path / "var", web={"port": 0, **web})
    served = serve(config, store, StageHistograms())
    try:
        yield served.port
    finally:
        served.close()
