"""Sends a request and checks its answers."""

import json

import aiohttp

from tests.clients.requests.request import Answer, Request

PATIENCE = aiohttp.ClientTimeout(280)


async def ask(url: str, request: Request) -> None:
    """Send a request in each of its forms. Fails where an answer is not what its client needs."""
    async with aiohttp.ClientSession(url, timeout=PATIENCE) as session:
        for body in request.bodies():
            data = None if body is None else json.dumps(body)
            headers = dict(request.headers)
            async with session.request(
                request.method, request.path, data=data, headers=headers
            ) as response:
                stream = isinstance(body, dict) and body.get("stream") is True
                answer = Answer(response.status, response.headers, await response.read(), stream)
            assert answer.status == request.status, answer.data
            request.needs(answer)
