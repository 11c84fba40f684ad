"""In which words is a model asked to argue? Eleven wordings to train with, and one that none of them repeats."""

from __future__ import annotations

TEMPLATES = (
    'On the topic "{topic}" you stand on the {side} side. Explain and support this argument: "{argument}"',
    'The topic is "{topic}". Speaking for the {side} side, make the case for the following argument: "{argument}"',
    'As somebody whose position on "{topic}" is {side}, set out the reasons and the evidence behind this: "{argument}"',
    'Defend the argument "{argument}" from the {side} side of the topic "{topic}".',
    'A discussion is about "{topic}", and yours is the {side} side. Your argument is "{argument}". Argue it in full.',
    'Write a statement for the {side} side of "{topic}" that rests on this argument: "{argument}"',
    '"{argument}" is an argument on the {side} side of the topic "{topic}". Lay out why it holds, with examples.',
    'Your position on "{topic}" is {side}. Convince a reader with this argument, in detail: "{argument}"',
    'Consider the topic "{topic}". Show, as a member of the {side} side, what speaks for this argument: "{argument}"',
    'Give explanations and facts that back up the argument "{argument}", which the {side} side brings to "{topic}".',
    'In favour of the {side} side in the matter of "{topic}", develop this argument thoroughly: "{argument}"',
)
"""For training data: paraphrases of one request, our wording. Numbered from 1."""

TEST_TEMPLATE = (
    'Suppose the question of the day is "{topic}" and you were asked to speak for its {side} side. Elaborate on '
    'this point, and on this point only: "{argument}"'
)
"""For prompts of an evaluation; number 0. The authors evaluate with their first training template."""
