"""Two answers to the same request, compared. Pure: from the gateway's chunks to a comparison, whoever asked.

    said        one choice of an answer, put together from its chunks
    difference  where two answers first differ, and of which kind that is
    distance    how far apart two sampled answers are
    triple      two comparisons of one request, beside each other: an engine with itself, and with the other
    data        tool calls and JSON, compared as data and held against a schema

The live shadow and the offline comparison (`loadtests.compare`) use the same functions.
"""

from gateway.experiments.answers.data import DataCheck, check_data
from gateway.experiments.answers.difference import Difference, DifferenceKind, Unit, common_unit, first_difference
from gateway.experiments.answers.distance import distance, length_gap
from gateway.experiments.answers.said import CalledTool, SaidAnswer, SaidToken, Transcript
from gateway.experiments.answers.triple import AnswerTriple, divergences

__all__ = [
    "AnswerTriple",
    "CalledTool",
    "DataCheck",
    "Difference",
    "DifferenceKind",
    "SaidAnswer",
    "SaidToken",
    "Transcript",
    "Unit",
    "check_data",
    "common_unit",
    "distance",
    "divergences",
    "first_difference",
    "length_gap",
]
