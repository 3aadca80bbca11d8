"""A server that streams every chat answer over a fixed time, in a process of its own; prints its port.

python benchmarks/slow_server.py SECONDS

Who does not ask for a stream gets the whole answer at the end. Pieces of a stream come at even intervals.
"""

from __future__ import annotations

import asyncio
import json
import sys

PIECES = 10  # of a streamed answer: one each 20 ms of 200, as of a model that writes 50 tokens a second
TEXT = "one small step, and then another\n\n" * 25 + "\\boxed{42}"
USAGE = {"prompt_tokens": 150, "completion_tokens": 200, "total_tokens": 350}
MESSAGE = {"role": "assistant", "content": TEXT}
ANSWER = {
    "object": "chat.completion",
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
    "usage": USAGE,
}


def event(chunk: dict) -> bytes:
    """A piece of a chat completion as a server-sent event."""
    return b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk"} | chunk).encode() + b"\n\n"


def stream() -> list[bytes]:
    """The answer in chunks of HTTP; the last one has its end and what it took."""
    size = -(-len(TEXT) // PIECES)
    deltas = [{"content": TEXT[i : i + size]} for i in range(0, len(TEXT), size)]
    pieces = [event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]
    pieces[-1] += event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    pieces[-1] += event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
    chunks[-1] += b"0\r\n\r\n"
    return chunks


async def main(seconds: float) -> None:
    data, chunks = json.dumps(ANSWER).encode(), stream()
    whole = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
                begun, asked = clock(), json.loads(await reader.readexactly(length))
                if not asked.get("stream"):
                    await asyncio.sleep(seconds)
                    writer.write(whole)
                    continue
                writer.write(head)
                for number, chunk in enumerate(chunks, 1):
                    await asyncio.sleep(begun + seconds * number / len(chunks) - clock())
                    writer.write(chunk)
        except (asyncio.IncompleteReadError, ConnectionError):  # the client is done
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
