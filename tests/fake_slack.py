"""A stand-in for Slack on loopback. `modes` lists how the next calls of a method end; later calls succeed.

200, 429 and 500 are HTTP statuses. "reset" closes the connection before the message is accepted, "lost" afterwards.
"text" accepts it and replies without JSON. Any other word is an error name of Slack. `hook` is a webhook.
"""

import json
import socket
import threading
import time
from collections import defaultdict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse


class FakeSlack:
    def __init__(self):
        self.messages, self.files, self.calls = [], [], []
        self.modes = defaultdict(deque)
        self.always = {}  # mode of a method that has no other
        self.delay_s = 0.0
        self.retry_after = "7"
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                slack.answer(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request):
        address = urlparse(request.path)
        method = address.path.removeprefix("/api/")
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        fields = {name: values[0] for name, values in parse_qs(address.query).items()}
        if "json" in request.headers.get("Content-Type", ""):
            fields |= json.loads(body or b"{}")
        elif method not in ("upload", "hook"):
            fields |= {name: values[0] for name, values in parse_qs(body.decode()).items()}
        time.sleep(self.delay_s)
        self.calls.append(method)
        self.headers = dict(request.headers)
        mode = self.modes[method].popleft() if self.modes[method] else self.always.get(method, 200)
        status, reply = 200, {"ok": True}
        if mode in (429, 500):
            status, reply = mode, {"ok": False, "error": "ratelimited" if mode == 429 else "internal_error"}
        elif mode not in (200, "reset", "lost", "text"):
            reply = {"ok": False, "error": mode}
        elif mode != "reset":
            reply |= self.take(method, fields, body)
        if mode in ("reset", "lost"):
            request.connection.shutdown(socket.SHUT_RDWR)
            return
        text = b"<html>proxy</html>" if mode == "text" else json.dumps(reply).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        if mode == 429:
            request.send_header("Retry-After", self.retry_after)
        request.end_headers()
        request.wfile.write(text)

    def take(self, method, fields, body):
        if method == "chat.postMessage":
            self.messages.append({**fields, "ts": f"17000000{len(self.messages):02d}.000100"})
            return {"ts": self.messages[-1]["ts"], "channel": fields["channel"]}
        if method == "hook":
            self.messages.append(fields or {"form": body})
        if method == "chat.update":
            posted = [message for message in self.messages if message["ts"] == fields["ts"]]
            for message in posted:
                message["text"] = fields["text"]
            return {} if posted else {"ok": False, "error": "message_not_found"}
        if method == "conversations.history":
            return {"messages": list(reversed(self.messages))}
        if method == "files.getUploadURLExternal":
            return {"upload_url": self.url + "upload", "file_id": "F1"}
        if method == "upload":
            self.files.append({"bytes": len(body)})
        if method == "files.completeUploadExternal":
            self.files[-1] |= {"thread_ts": fields.get("thread_ts"), "channel": fields.get("channel_id")}
            return {"files": [{"id": "F1"}]}
        return {"team": "Test Observatory"}
