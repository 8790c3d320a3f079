"""A stand-in for SkyPortal on loopback: sources and their comments, as its API documents them.

`modes` lists how the next requests end: "lost" accepts one and closes the connection, a number is a status of HTTP.
"""

import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FakeSkyPortal:
    def __init__(self):
        self.sources, self.comments, self.calls, self.modes = {}, {}, [], []
        portal = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                portal.answer(self)

            do_GET = do_PUT = do_POST  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        body = json.loads(request.rfile.read(int(request.headers.get("Content-Length", 0))) or b"{}")
        self.calls.append((request.command, request.path))
        mode = self.modes.pop(0) if self.modes else 200
        status, reply = (mode, {}) if isinstance(mode, int) and mode != 200 else self.take(request, body)
        if mode == "lost":
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        text = json.dumps(reply).encode()
        request.send_response(status)
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def take(self, request, body):
        if request.headers.get("Authorization") != "token sesame":
            return 401, {"status": "error", "message": "Unauthorized"}
        source, comment = re.fullmatch(r"/api/sources(?:/([^/]+)/comments(?:/(\d+))?)?", request.path).groups()
        if source is None:
            self.sources[body["id"]] = body
            return 200, {"status": "success", "data": {"id": body["id"]}}
        if source not in self.sources:
            return 400, {"status": "error", "message": "Invalid source"}
        if request.command == "GET":
            found = [{"id": number, **known} for number, known in self.comments.items() if known["obj_id"] == source]
            return 200, {"status": "success", "data": found}
        number = int(comment) if comment else len(self.comments) + 1
        if request.command == "PUT" and number not in self.comments:
            return 404, {"status": "error", "message": "Could not find any accessible comments."}
        self.comments[number] = {**self.comments.get(number, {}), **body, "obj_id": source}
        return 200, {"status": "success", "data": {"comment_id": number}}
