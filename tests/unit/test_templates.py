"""Chat templates come with a model's folder and are somebody else's code: what can a hostile one do?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunesift import Failure, HttpModel, Message, Span
from tunesift.models.folders import segment_of, tokenizer
from tunesift.models.likelihood import SpanEncoder

HOSTILE = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ messages.__class__ }}", "{{ raise_exception.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('touch OWNED') }}", "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ self.__init__.__globals__ }}", "{{ joiner.__init__.__globals__ }}", "{{ namespace.__init__.__globals__ }}",
    "{{ ''|attr('__class__') }}", "{{ ''['__class__'].__base__ }}", "{{ messages.append(1) }}", "{{ messages.clear() }}",
    "{{ messages[0].update({'role': 'x'}) }}", "{{ messages.pop() }}", "{{ ''.join.__self__.__class__.__mro__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}", "{% for x in range(10**9) %}x{% endfor %}", "{{ 1 // 0 }}",
    "{{ messages[99].content }}", "{{ 'a' + 1 }}", "{{ nothing.at.all }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}{{ os }}", "{% extends 'x' %}", "{{ raise_exception('no') }}",
    "{{ messages[0].content.encode().__class__ }}", "{{ (1).__class__.__bases__ }}", "{{ strftime_now.__globals__ }}",
    "{% if %}",
]  # fmt: skip
"""Each is an attack, or goes wrong when it is run."""


@pytest.fixture
def folder(byte_tokenizer: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(byte_tokenizer, tmp_path / "model"))


@pytest.mark.parametrize("template", HOSTILE)
def test_S6_a_hostile_chat_template_ends_in_a_failure_of_the_row(
    folder: Path, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    encode = SpanEncoder(tokenizer(str(folder)), 1000)
    found = segment_of(encode, Span((Message("user", "hello"),), "there"))
    if isinstance(found, Failure):
        assert found.kind == "refused"
        assert found.message.startswith("the model's chat template takes no such conversation: ")
    else:  # nothing was reached: what is undefined is empty
        assert bytes(i for i in found.ids if i < 256) in (b"there", b"ithere")
    assert not (tmp_path / "OWNED").exists()


def test_S6_the_endpoints_losses_end_so_too(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": HOSTILE[0]}))
    model = HttpModel(url="http://127.0.0.1:1/v1", model="m", tokenizer=str(folder))
    (found,) = model.loss([Span((Message("user", "hello"),), "there")])
    assert isinstance(found, Failure)
    assert "access to attribute '__class__' of 'str' object is unsafe" in found.message
