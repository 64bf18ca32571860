"""Closed-loop users that ask every served model for random valid things: ``make loadtest``.

Each user asks the service which models it has, draws payloads from the card's ``random_request``, and checks that the
answer has one prediction per instance.
"""

import random
from typing import Any

import msgspec
import numpy as np
from locust import HttpUser, between, task

from models.family import AnyCard, Assets
from models.registry import find_card


def payload(card: AnyCard, assets: Assets, rng: np.random.Generator) -> bytes:
    """A body with one random instance."""
    return msgspec.json.encode({"instances": [card.random_request(rng, assets)]})


class AnyModelUser(HttpUser):
    """Asks the models in random order, without favourites."""

    wait_time = between(0, 0.01)

    def on_start(self) -> None:
        """Learn which models are served and what their codecs need."""
        self.rng = np.random.default_rng(random.randrange(2**32))  # noqa: S311  payloads, not secrets
        self.models: list[tuple[str, AnyCard, Assets]] = []
        for model in self.client.get("/v1/models").json()["models"]:
            constants = self.client.get(f"/v1/models/{model['name']}/assets", name="/v1/models/{model}/assets").content
            card = find_card(model["family"], model["task"])
            assets: Assets = msgspec.json.decode(constants, type=card.assets)
            self.models.append((model["name"], card, assets))

    @task
    def ask(self) -> None:
        """One request to one model."""
        name, card, assets = self.models[int(self.rng.integers(len(self.models)))]
        with self.client.post(
            f"/v1/models/{name}/predict",
            data=payload(card, assets, self.rng),
            headers={"content-type": "application/json"},
            catch_response=True,
        ) as response:
            answer: dict[str, Any] = response.json() if response.status_code == 200 else {}
            if len(answer.get("predictions", ())) != 1:
                response.failure(f"status {response.status_code}, {len(answer.get('predictions', ()))} predictions")
