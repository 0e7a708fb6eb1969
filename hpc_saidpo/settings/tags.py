"""The settings of the group `tags`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import Name, Positive, group


@group
class Endpoint:
    """An OpenAI-compatible server of chat completions. `body` is added to each request; null removes a key."""

    url: Name = "http://127.0.0.1:8000/v1"
    api_key_env: str = ""
    concurrency: Positive = 8
    per_minute: Annotated[float, Field(gt=0)] | None = None
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    tries: Positive = 6
    backoff_s: Annotated[float, Field(ge=0)] = 2.0
    body: dict[str, bool | int | float | str | None] = Field(default_factory=dict)

    def __post_init__(self):
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url {self.url!r} must begin with http:// or https://")


@group
class Tags:
    """The source of the knowledge points of each question."""

    mode: Literal["column", "model", "endpoint", "export", "import"] = "column"
    model: str = ""
    max_new_tokens: Annotated[int, Field(ge=8)] = 96
    chunk_questions: Positive = 64
    skills: Name | None = None
    file: Name | Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    reply_mib: Positive = 4
    endpoint: Endpoint = Field(default_factory=Endpoint)

    def __post_init__(self):
        if self.mode != "column" and not self.model:
            raise ValueError(f"mode={self.mode} needs model: the model that answers, or that made the answers")
        if self.mode in ("export", "import") and not self.files:
            raise ValueError(f"mode={self.mode} needs file")
        if self.mode == "export" and len(self.files) > 1:
            raise ValueError("mode=export writes one file")

    @property
    def files(self) -> tuple[str, ...]:
        """Files of requests or answers."""
        return (self.file,) if isinstance(self.file, str) else self.file or ()
