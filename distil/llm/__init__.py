"""Language models behind an endpoint: the client, its transport, cache and limits, and the prompts."""
