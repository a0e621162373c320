"""The two servers behind examples/edge.toml: a WebSocket and web server on port 9000, a gRPC server on port 9001.

Run it with Debian's Python: apt install python3-grpcio python3-websockets; python3 examples/servers.py
"""

import asyncio
import http

import grpc
import websockets


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def page(path, fields):
    """Answers what does not ask for a WebSocket."""
    if fields.get("Upgrade", "").lower() != "websocket":
        return http.HTTPStatus.OK, {"Content-Type": "text/plain"}, b"hello\n"


class Calls(grpc.GenericRpcHandler):
    """/test.Echo/Unary answers with its message, which may be any bytes."""

    def service(self, details):
        if details.method == "/test.Echo/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)


async def unary(message, _context):
    return message


async def main():
    calls = grpc.aio.server()
    calls.add_generic_rpc_handlers((Calls(),))
    calls.add_insecure_port("127.0.0.1:9001")
    await calls.start()
    async with websockets.serve(echo, "127.0.0.1", 9000, process_request=page):
        await calls.wait_for_termination()


asyncio.run(main())
