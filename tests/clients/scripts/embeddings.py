"""Embeddings by OpenAI's client, LangChain's for OpenAI and Ollama, and LiteLLM."""

import json
import sys
from importlib.metadata import version

import litellm
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings
from openai import OpenAI

url, *texts = sys.argv[1:]
base = {"base_url": f"{url}/v1", "api_key": "none"}
found = {}
answer = OpenAI(**base).embeddings.create(model="default", input=texts)
found["openai"] = [one.embedding for one in answer.data]
answer = litellm.embedding("openai/default", texts, api_base=f"{url}/v1", api_key="none")
found["litellm"] = [one["embedding"] for one in answer.data]
# the check would fetch OpenAI's tokenizer
langchain = OpenAIEmbeddings(model="default", check_embedding_ctx_length=False, **base)
found["langchain-openai"] = langchain.embed_documents(texts)
ollama = OllamaEmbeddings(model="default", base_url=url)
found["langchain-ollama"] = ollama.embed_documents(texts)
print(json.dumps({"versions": {name: version(name) for name in found}, "found": found}))
