"""An HTTP server that speaks OpenAI's protocol, answers by rule, and misbehaves when asked to.

The first part of the path says how it behaves: http://127.0.0.1:PORT/cut/v1 cuts its answers off.
Run as a program it serves until it is killed, and GET /log tells what it was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import threading
import time
from collections import Counter
from typing import Any

import openai_rules as rules

KEY = "sk-planted-secret-0123456789"
FAULTS = {
    "plain": "behaves",
    "429": "too many requests, twice for each request, with Retry-After",
    "500": "fails, twice for each request",
    "down": "always fails",
    "slow": "answers each request in time only when it is asked again",
    "hangup": "closes the connection without an answer, once for each request",
    "cut": "ends the body in its middle",
    "garbage": "a whole body that is no JSON",
    "quota": "out of credit",
    "400": "refuses",
    "401": "refuses the key, and repeats it",
    "404": "knows no such model",
    "counts": "one log-probability or one row too few",
    "prose": "talks instead of answering in numbers",
    "other": "answers another request",
    "shift": "prompt log-probabilities off by one token",
    "chance": "prompt log-probabilities that say nothing",
    "noecho": "ignores echo, gives log-probabilities of the generated token",
    "generated": "chat with log-probabilities, no completions",
    "text": "chat without log-probabilities, no completions",
    "strict": "knows max_completion_tokens only, and no JSON mode",
    "few": "at most five log-probabilities",
}
REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found"}


class Server:
    """The server in a thread of this process; `with Server() as server: server.url("cut")`."""

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.seen: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.open = self.most_open = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()

    def url(self, fault: str = "plain") -> str:
        assert fault in FAULTS
        return f"http://127.0.0.1:{self.port}/{fault}/v1"

    def __enter__(self) -> Server:
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self.start(0))
        ready.set()
        self._loop.run_forever()
        self._listener.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))

    async def start(self, port: int) -> None:
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=256)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass  # the client went away, or the server is to end
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = 0
        for line in head.split("\r\n"):
            if line.lower().startswith("content-length:"):
                length = int(line.partition(":")[2])
        payload = await reader.readexactly(length)
        path = head.split(" ", 2)[1]
        if path == "/log":
            log = {"seen": self.seen, "answered": self.answered, "most_open": self.most_open}
            await self._send(writer, 200, json.dumps(log).encode(), {})
            return True
        self.headers.append(head)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._answer(path, payload, head, writer)
        finally:
            self.open -= 1

    async def _answer(
        self, path: str, payload: bytes, head: str, writer: asyncio.StreamWriter
    ) -> bool:
        _, fault, _, endpoint = path.split("/", 3)
        name = hashlib.sha256(path.encode() + payload).hexdigest()[:16]
        self.seen[name] += 1
        body = json.loads(payload)
        self.bodies.append(body)
        due = time.monotonic() + self.delay
        headers: dict[str, str] = {}
        status, data = self._reply(fault, endpoint, body, name, head, headers)
        await asyncio.sleep(due - time.monotonic())
        if fault == "slow" and self.seen[name] == 1:
            await asyncio.sleep(3)
        if fault == "hangup" and self.seen[name] == 1:
            return False
        raw = data if isinstance(data, bytes) else json.dumps(data).encode()
        if status == 200:
            self.answered[name] += 1
        await self._send(writer, status, raw, headers, cut=fault == "cut")
        return fault != "cut"

    def _reply(
        self, fault: str, endpoint: str, body: dict[str, Any], name: str, head: str,
        headers: dict[str, str],
    ) -> tuple[int, Any]:  # fmt: skip
        again = self.seen[name] > 2
        if fault == "429" and not again:
            headers["Retry-After"] = "0.05"
            return 429, _error("slow down", "rate_limit_exceeded")
        if fault == "down" or (fault == "500" and not again):
            return 500, _error("broken", "server_error")
        if fault == "quota":
            return 429, _error("You exceeded your current quota", "insufficient_quota")
        if fault == "400":
            return 400, _error("this model's maximum context length is 8", "context_length")
        if fault == "401":
            key = next(x for x in head.split("\r\n") if x.lower().startswith("authorization:"))
            return 401, _error(f"wrong key: {key.split()[-1]}", "invalid_api_key")
        if fault == "404" or (fault in ("generated", "text") and endpoint == "completions"):
            return 404, _error("no such model or path", "model_not_found")
        if fault == "strict" and ("max_tokens" in body or "response_format" in body):
            which = "max_tokens" if "max_tokens" in body else "response_format"
            return 400, _error(f"Unsupported parameter: '{which}'", "unsupported_parameter")
        if fault == "few" and int(body.get("logprobs") or 0) > 5:
            return 400, _error("logprobs must be at most 5", "invalid_value")
        if fault == "garbage":
            return 200, b"<html>proxy</html>"
        return 200, (_chat if endpoint.startswith("chat") else _completion)(body, fault)

    async def _send(
        self, writer: asyncio.StreamWriter, status: int, raw: bytes, headers: dict[str, str],
        cut: bool = False,
    ) -> None:  # fmt: skip
        lines = [
            f"HTTP/1.1 {status} {REASONS.get(status, 'Fault')}",
            "Content-Type: application/json",
            f"Content-Length: {len(raw)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        writer.write(
            "\r\n".join(lines).encode() + b"\r\n\r\n" + (raw[: len(raw) // 2] if cut else raw)
        )
        await writer.drain()


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": code, "code": code, "param": None}}


def _usage(sent: str, received: str) -> dict[str, int]:
    count = [len(rules.TOKENS.findall(text)) for text in (sent, received)]
    return {"prompt_tokens": count[0], "completion_tokens": count[1], "total_tokens": sum(count)}


def _chat(body: dict[str, Any], fault: str) -> dict[str, Any]:
    text = rules.chat(body["messages"])
    answers_json = text.startswith("{")
    if fault == "prose" and answers_json:
        text = "The unit seems to fire rather strongly here, perhaps a 10 at first and then 0."
    if answers_json and fault in ("other", "counts"):
        answer = json.loads(text)
        if fault == "other":
            answer["id"] = "another"
        else:
            next(v for v in answer.values() if isinstance(v, list)).pop()
        text = json.dumps(answer)
    choice: dict[str, Any] = {
        "index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text},
    }  # fmt: skip
    if body.get("logprobs") and fault != "text":
        choice["logprobs"] = {"content": rules.generated(text)}
    sent = "".join(m["content"] for m in body["messages"])
    return _wrap("chat.completion", body, choice, _usage(sent, text))


def _completion(body: dict[str, Any], fault: str) -> dict[str, Any]:
    prompt: str = body["prompt"]
    if prompt.endswith(rules.PREFIX):
        text = " " + rules.explain(prompt)
    else:
        best = rules.next_token(prompt, rules.TOKENS.findall(prompt))
        text = max(best, key=lambda t: best[t])
    echo = bool(body.get("echo")) and fault != "noecho"
    shown = prompt if fault != "other" else "Some other prompt\n\tunknown\n"
    found = rules.positions(shown + text)
    if fault == "shift":  # each position holds what belongs to the next
        found = [(t, n[1], n[2]) for (t, *_), n in zip(found, [*found[1:], found[-1]], strict=True)]
    if fault == "chance":
        found = [(t, -8.0, dict.fromkeys(("0", "5", "9"), -8.0)) for t, *_ in found]
    if not echo:
        found = found[-len(rules.TOKENS.findall(text)) :]
    if fault == "counts":
        found = found[:-3]
    choice: dict[str, Any] = {
        "index": 0, "finish_reason": "length", "text": shown + text if echo else text,
    }  # fmt: skip
    if body.get("logprobs"):
        choice["logprobs"] = {
            "tokens": [t for t, *_ in found],
            "token_logprobs": [p for _, p, _ in found],
            "top_logprobs": [top for *_, top in found],
        }
    return _wrap("text_completion", body, choice, _usage(prompt, text))


def _wrap(
    kind: str, body: dict[str, Any], choice: dict[str, Any], usage: dict[str, int]
) -> dict[str, Any]:
    return {
        "id": "x", "object": kind, "created": 1, "model": body["model"], "choices": [choice],
        "usage": usage,
    }  # fmt: skip


async def _forever(port: int, delay: float) -> None:
    server = Server(delay)
    await server.start(port)
    print(server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(_forever(options.port, options.delay))
