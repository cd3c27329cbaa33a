# SPDX-License-Identifier: Apache-2.0
"""An HTTP client and server with Python's asyncio.

    web.py get HOST PORT PATH COUNT    COUNT at once, each on a connection of its own; prints the sums of the bodies
    web.py serve PORT                  answers every request with the address of who asks
"""
import asyncio
import hashlib
import sys


async def get(host, port, path):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return f"{head.split()[1].decode()} {hashlib.sha256(body).hexdigest()}"


async def get_all(host, port, path, count):
    for line in await asyncio.gather(*(get(host, port, path) for _ in range(count))):
        print(line)


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    text = writer.get_extra_info("peername")[0] + "\n"
    writer.write(f"HTTP/1.0 200 OK\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
    await writer.drain()
    writer.close()


async def serve(port):
    server = await asyncio.start_server(answer, None, port)  # all addresses of both families
    await server.serve_forever()


if sys.argv[1] == "get":
    asyncio.run(get_all(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
else:
    asyncio.run(serve(int(sys.argv[2])))
