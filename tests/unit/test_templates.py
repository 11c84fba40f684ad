"""Chat templates come with a model's folder and are somebody else's code: what can a hostile one do?"""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason='needs the "local" extra')

from transformers import AutoTokenizer

from tunesift import Failure, HttpModel, Message, Span
from tunesift.models.folders import segment_of
from tunesift.models.likelihood import SpanEncoder, render
from tunesift.models.templates import MOST_ENDS, Renderer, TemplateFault

UNDERSCORES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch OWNED') }}", "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self.__init__.__globals__ }}", "{{ joiner.__init__.__globals__ }}", "{{ namespace.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}", "{{ ''['__class__'].__base__ }}", "{{ ''.join.__self__.__class__.__mro__ }}",
    "{{ messages[0].content.encode().__class__ }}", "{{ (1).__class__.__bases__ }}", "{{ strftime_now.__globals__ }}",
    "{{ strftime_now.__code__.co_consts }}", "{{ self._TemplateReference__context.environment }}",
    "{{ (messages|map(attribute='__class__')|first).mro() }}", "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ (''|attr('\\x5f\\x5fclass\\x5f\\x5f'))|attr('mro') }}", "{{ request.application.__globals__ }}",
    "{{ range.__self__ }}", "{{ dict.__base__.__subclasses__() }}", "{{ cycler.next.__func__.__globals__ }}",
    "{{ get_flashed_messages.__globals__['current_app'] }}", "{{ url_for.__globals__.os.popen('touch OWNED') }}",
    "{{ lipsum|attr('__globals__')|attr('get')('os') }}", "{{ messages.append.__self__.__class__ }}",
    "{{ {}.__class__.__base__ }}", "{{ [].__class__.__base__.__subclasses__()[40]('OWNED', 'w') }}",
    "{{ true.__class__.__mro__ }}", "{{ none.__class__ }}", "{{ ''.format.__self__.__class__ }}",
    "{% set x = ''.__class__ %}{{ x.__base__ }}", "{% for c in [].__class__.__base__.__subclasses__() %}{{ c }}{% endfor %}",
    "{% with a = ''.__class__ %}{{ a.mro() }}{% endwith %}", "{% macro m(x) %}{{ x.__class__ }}{% endmacro %}{{ m('').mro() }}",
    "{{ '{0.__class__.__mro__}'.format('') }}", "{{ '{a.__class__}'.format_map({'a': ''}) }}", "{{ ''.__reduce_ex__(2) }}",
    "{{ (messages|first).__init_subclass__ }}", "{{ ''.__doc__.__class__ }}", "{{ ''.__dir__()[0].__class__ }}",
]  # fmt: skip
CHANGES = [
    "{{ messages.append(1) }}", "{{ messages.clear() }}", "{{ messages[0].update({'role': 'x'}) }}", "{{ messages.pop() }}",
    "{{ messages.insert(0, 1) }}", "{{ messages.sort() }}", "{{ messages[0].pop('role') }}", "{{ messages.extend([1]) }}",
]  # fmt: skip
OTHER = [
    "{{ 1 // 0 }}", "{{ messages[99].content }}", "{{ 'a' + 1 }}", "{{ nothing.at.all }}", "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}", "{% extends 'x' %}", "{{ raise_exception('no') }}", "{% if %}",
    "{% from 'os' import system %}{{ system('touch OWNED') }}", "{{ open('OWNED', 'w') }}", "{{ eval('1') }}",
    "{{ __import__('os').system('touch OWNED') }}",
]  # fmt: skip
HOSTILE = [*UNDERSCORES, *CHANGES, *OTHER]
"""Each is an attack, or goes wrong when it is run."""
GREEDY = {
    "a long text": ("{{ 'a' * 10**10 }}", "it needs more than 512 MB of memory"),
    "a long number": ("{{ '%1000000000d'|format(1) }}", "it needs more than 512 MB of memory"),
    "a wide text": ("{{ 'a'.ljust(2 * 10**9) }}", "it needs more than 512 MB of memory"),
    "a long list": ("{{ ([0] * 10**9)|length }}", "it needs more than 512 MB of memory"),
    "a text that doubles": ("{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
                            "it needs more than 512 MB of memory"),
    "five megabytes": ("{{ 'a' * (5 * 1024 * 1024) }}", "it writes more than 4 MB"),
    "six megabytes in pieces": ("{% for i in range(6) %}{{ 'é' * (512 * 1024) }}{% endfor %}", "it writes more than 4 MB"),
    "a power": ("{{ 9 ** (9 ** 9) }}", "it takes more than 2 s"),
    "loops in loops": ("{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}", "it takes more than 2 s"),
    "one loop": ("{% for x in range(10**9) %}x{% endfor %}", "Range too big"),
    "itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth exceeded"),
}  # fmt: skip


@pytest.fixture
def folder(byte_tokenizer: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(byte_tokenizer, tmp_path / "model"))


def with_template(folder: Path, template: str) -> SpanEncoder:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return SpanEncoder(AutoTokenizer.from_pretrained(folder), 1000)


def test_there_are_sixty_of_them() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize("template", HOSTILE)
def test_S6_a_hostile_chat_template_ends_in_a_failure_of_the_row(
    folder: Path, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = segment_of(with_template(folder, template), Span((Message("user", "hello"),), "there"))
    if isinstance(found, Failure):
        assert found.kind == "refused"
        assert found.message.startswith("the model's chat template takes no such conversation: ")
    else:  # nothing was reached: what is undefined is empty
        assert bytes(i for i in found.ids if i < 256) in (b"there", b"ithere")
    assert not (tmp_path / "OWNED").exists()


@pytest.mark.parametrize("name", GREEDY)
def test_S6_a_greedy_chat_template_meets_its_limit(folder: Path, name: str) -> None:
    template, why = GREEDY[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encode, began = with_template(folder, template), time.monotonic()
    found = segment_of(encode, Span((Message("user", "hello"),), "there"))
    assert isinstance(found, Failure)
    assert why in found.message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "and not here"
    assert time.monotonic() - began < 30
    kind = segment_of(with_template(folder, "{{ messages[0].content }}"), Span((Message("user", "hello"),), "x"))
    assert not isinstance(kind, Failure), "who comes next is rendered"


def test_S6_a_template_that_ends_its_process_over_and_over_is_not_run_again() -> None:
    renderer, turns = Renderer(), [{"role": "user", "content": "x"}]
    for _ in range(MOST_ENDS):
        with pytest.raises(TemplateFault, match="it takes more than 2 s"):
            renderer.render(GREEDY["a power"][0], turns, {})
    assert renderer._child is None
    with pytest.raises(TemplateFault, match="it ended 3 processes that tried"):
        renderer.render(GREEDY["a power"][0], turns, {})
    assert renderer._child is None, "no process was begun"
    assert renderer.render("{{ messages[0].content }}", turns, {}) == "x"
    renderer.close()


def test_S7_who_renders_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_KEY", "sk-canary-in-the-environment")
    renderer = Renderer()
    assert renderer.render("x", [{"role": "user", "content": "x"}], {}) == "x"
    assert renderer._child is not None
    there = Path(f"/proc/{renderer._child.pid}")
    assert b"sk-canary" not in (there / "environ").read_bytes() + (there / "cmdline").read_bytes()
    assert os.getsid(renderer._child.pid) != os.getsid(0), "and no signal to us is for it"
    renderer.close()


TEMPLATES = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
              "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "with its tokens": "{{ bos_token }}{% for m in messages %}[{{ m.role|upper }}] {{ m.content|trim }}{{ eos_token }}{% endfor %}",
    "of blocks": "{%- for m in messages -%}\n    {%- if m.role == 'user' %}\nQ: {{ m.content }}\n    {%- endif %}\n{%- endfor %}",
    "with generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "JSON": "{{ messages|tojson }}{{ messages[0]|tojson(indent=2) }}",
    "loop controls": "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
}  # fmt: skip


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_child_renders_what_transformers_renders_here(folder: Path, name: str) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    said = config | {"chat_template": TEMPLATES[name], "eos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    ours = AutoTokenizer.from_pretrained(folder)
    for texts in (("hello",), (" <b> é\n🙂 ", "ok", "x" * 50_000)):
        talk = [Message("user" if n % 2 == 0 else "assistant", t) for n, t in enumerate(texts)]
        turns = [{"role": m.role, "content": m.text} for m in talk]
        expected = ours.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        assert render(talk, ours) == expected


def test_S6_the_endpoints_losses_end_so_too(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": HOSTILE[0]}))
    model = HttpModel(url="http://127.0.0.1:1/v1", model="m", tokenizer=str(folder))
    (found,) = model.loss([Span((Message("user", "hello"),), "there")])
    assert isinstance(found, Failure)
    assert "access to attribute '__class__' of 'str' object is unsafe" in found.message
