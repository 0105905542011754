"""Instructor: a typed answer by a demanded call, whole and as a stream of partial objects."""

import json
import sys
from importlib.metadata import version

import instructor
from openai import OpenAI
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


url, prompt = sys.argv[1:]
client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key="none"))
asked = {"model": "default", "messages": [{"role": "user", "content": prompt}]}
whole = client.chat.completions.create(response_model=Person, max_retries=0, **asked)
*_, streamed = client.chat.completions.create_partial(response_model=Person, max_retries=0, **asked)
print(
    json.dumps(
        {
            "versions": {"instructor": version("instructor")},
            "whole": whole.model_dump(),
            "streamed": streamed.model_dump(),
        }
    )
)
