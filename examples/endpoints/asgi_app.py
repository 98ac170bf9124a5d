"""
An ASGI application that has no port, under Daphne, which takes Twisted's endpoints.

    cd examples/endpoints
    daphne -e tunnel:127.0.0.1:9999:cluster=asgi asgi_app:app

It answers requests, and echoes what comes over a WebSocket.
"""


async def app(scope, receive, send):
    """Answer one request, or one WebSocket."""
    if scope["type"] == "http":
        body = f"{scope['method']} {scope['path']} of {scope['client'][0]}\n".encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message.get("text") or ""})
