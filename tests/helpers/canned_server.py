"""An HTTP server that answers what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]


class CannedServer(ThreadingHTTPServer):
    """`with CannedServer(answer) as server`: `answer(path, body, headers)` is what is sent.

    Attributes:
        asked: (path, body, headers) of every request, in order.
    """

    daemon_threads = True

    def __init__(self, answer: Callable[[str, Any, dict[str, str]], Answer]) -> None:
        self.asked: list[tuple[str, Any, dict[str, str]]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked.append((self.path, body, headers))
                status, more, data = answer(self.path, body, headers)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self) -> CannedServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.shutdown()
        self.server_close()


def chat(text: Any, finish: str = "stop", usage: Any = None, **message: Any) -> bytes:
    """The body of an answer of the chat protocol."""
    said = {"role": "assistant", "content": text, **message}
    answer = {"choices": [{"index": 0, "finish_reason": finish, "message": said}]}
    answer["usage"] = usage or {"prompt_tokens": 100, "completion_tokens": 20}
    return json.dumps(answer).encode()


def error(message: str, code: Any = None) -> bytes:
    """The body of a refusal."""
    return json.dumps({"error": {"message": message, "type": "error", "code": code}}).encode()
