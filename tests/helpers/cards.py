"""Model cards of nets that no record describes."""

from reproduction.fcn.nets import registry
from reproduction.fcn.segment import card
from reproduction.fcn.segment.card import Card


def make_card(name, classes, colours=None, **more):
    """Return the card of a net with one colour image as voc-fcn8s takes, and one kind of labels."""
    inputs = card.card_inputs(registry.find_net("voc-fcn8s"))
    return Card(name, inputs, {"label": card.card_labels("score", classes, colours)}, **more)
