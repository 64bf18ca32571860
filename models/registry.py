"""The only list of families. Torch-free."""

from models import graph, image, tagging, viewcount
from models.card import AnyCard, Family
from models.errors import CardMismatch

FAMILIES: tuple[Family, ...] = (viewcount.FAMILY, tagging.FAMILY, image.FAMILY, graph.FAMILY)
CARDS: tuple[AnyCard, ...] = tuple(card for family in FAMILIES for card in family.cards)


def find_card(family: str, task: str) -> AnyCard:
    """Return the card of one task.

    Raises:
        CardMismatch: If no family of this code has the task.
    """
    for card in CARDS:
        if (card.family, card.task) == (family, task):
            return card
    known = ", ".join(f"{card.family}/{card.task}" for card in CARDS)
    raise CardMismatch(f"no card for {family}/{task}; this code has {known}")
