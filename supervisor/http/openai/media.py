"""OpenAI's routes of sound and pictures: no model that makes or reads them can be served yet."""

from aiohttp import web

from gpufc.errors import NotSupported

PATHS = (
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/images/variations",
)


async def refuse_media(request: web.Request) -> web.Response:
    """Refuse work with sound or pictures."""
    kind = request.path.split("/")[2]
    raise NotSupported(f"This service has no model for {kind}")
