"""OpenAI's Responses: `/v1/responses`, with the responses and items that it remembers."""
