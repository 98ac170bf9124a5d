"""Tests for L{reverseproxy.routing.table}, and for the functions that it is made of."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import (
    DirectResponseConfig,
    MatchConfig,
    RedirectConfig,
    RouteActionConfig,
    RouterRuleConfig,
    VariableMatcherConfig,
)
from reverseproxy.errors import ConfigError
from reverseproxy.problems import Place
from reverseproxy.routing import (
    DEFAULT_TIMEOUT,
    ClusterRoute,
    DirectResponse,
    Redirect,
    RouteInput,
    Router,
    RouteResult,
)
from reverseproxy.routing.results import Mirror
from tests.routing.build import by_domain, cluster, config, facts, router, rule, rules, virtual_host


class DomainTests(SynchronousTestCase):
    """The choice of the virtual host."""

    everything = (
        "*",
        "*:8080",
        "*.example.com",
        "*.b.example.com",
        "*.example.com:80",
        "*.example.com:*",
        "*.example.org:*",
        "a.example.com",
        "a.example.com:80",
        "a.example.com:*",
        "b.example.com:81",
        "noport.example.net",
        "[::1]",
        "[::1]:80",
        "*ix.example.net",
    )

    def test_priorities(self) -> None:
        """Each kind of domain wins over the next."""
        table = by_domain(*self.everything)
        for host, expected in [
            # exact host and port
            ("a.example.com:80", "a.example.com:80"),
            ("a.example.com", "a.example.com"),
            ("b.example.com:81", "b.example.com:81"),
            # exact host, any port
            ("a.example.com:81", "a.example.com:*"),
            # wildcard host, exact port
            ("b.example.com:80", "*.example.com:80"),
            ("b.example.com", "*.example.com"),
            ("x.b.example.com", "*.b.example.com"),
            ("x.org:8080", "*:8080"),
            # a wildcard with the port wins over one with any port
            ("x.example.org:8080", "*:8080"),
            # wildcard host, any port
            ("b.example.com:82", "*.example.com:*"),
            ("x.example.org", "*.example.org:*"),
            ("x.example.org:1", "*.example.org:*"),
            # default
            ("example.com", "*"),
            ("elsewhere:1", "*"),
            # a domain without a port is for a Host without a port only
            ("noport.example.net", "noport.example.net"),
            ("noport.example.net:80", "*"),
            ("noport.example.net:", "noport.example.net"),
            # the asterisk stands for one character at least
            (".example.com", "*"),
            ("a.example.com.", "*"),
            # it need not end at a dot
            ("matrix.example.net", "*ix.example.net"),
            # case
            ("A.EXAMPLE.com", "a.example.com"),
            # IPv6
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]:80"),
            ("[::1]:81", "*"),
        ]:
            self.assertEqual(cluster(table.match(facts(host=host))), expected, host)

    def test_domainsAreLowered(self) -> None:
        """Domains may be written in any case."""
        table = by_domain("WWW.Example.COM", "*.Example.NET:80")
        self.assertEqual(cluster(table.match(facts(host="www.example.com"))), "WWW.Example.COM")
        self.assertEqual(cluster(table.match(facts(host="x.EXAMPLE.net:80"))), "*.Example.NET:80")

    def test_badHost(self) -> None:
        """A Host that is missing or malformed matches no virtual host, not even the default."""
        table = by_domain("*", "example.com")
        for host in ["", "a:b:80", "::1", "[::1", "[::1]:80:90", "a]:80", "[a:80"]:
            self.assertIsNone(table.match(facts(host=host)), host)

    def test_onlyDefault(self) -> None:
        """With nothing but a default, Host is not looked at."""
        for domain in ["*", "*:*"]:
            table = by_domain(domain)
            for host in ["", "a:b:80", "example.com"]:
                self.assertEqual(cluster(table.match(facts(host=host))), domain)

    def test_noDefault(self) -> None:
        """Without a default, other hosts match nothing."""
        self.assertIsNone(by_domain("a", "*.b").match(facts(host="c")))

    def test_firstVirtualHostIsFinal(self) -> None:
        """When no rule of the chosen virtual host matches, others are not tried."""
        table = router(
            virtual_host(["*"], rule("default", prefix="/")),
            virtual_host(["a"], rule("a", prefix="/a")),
        )
        self.assertEqual(cluster(table.match(facts("/a", host="a"))), "a")
        self.assertIsNone(table.match(facts("/b", host="a")))

    def test_severalDomains(self) -> None:
        """A virtual host may have several domains."""
        table = router(virtual_host(["a", "b:80", "*.c"], rule(prefix="/")))
        for host in ["a", "b:80", "x.c"]:
            self.assertEqual(cluster(table.match(facts(host=host))), "c")

    def test_virtualHostName(self) -> None:
        """A result tells which virtual host matched."""
        result = router(virtual_host(["*"], rule(prefix="/"), name="shop")).match(facts())
        self.assertEqual(result, ClusterRoute("c", DEFAULT_TIMEOUT, "shop"))

    def test_refused(self) -> None:
        """What MOSN refuses is refused, all problems at once and with their places."""
        for domains, message in [
            (["*", "*:*"], "virtual_hosts[0].domains[1]: there is a default domain already"),
            (["a", "A"], "virtual_hosts[0].domains[1]: 'A' occurs twice"),
            (["*.a:1", "*.A:1"], "virtual_hosts[0].domains[1]: '*.A:1' occurs twice"),
            (["a*"], "virtual_hosts[0].domains[0]: in 'a*', '*' may only be the first character"),
            ([""], "virtual_hosts[0].domains[0]: '' is not a host name, optionally with a port"),
            (["::1"], "virtual_hosts[0].domains[0]: '::1' is not a host name, optionally with a port"),
        ]:
            error = self.assertRaises(ConfigError, router, virtual_host(domains, rule(prefix="/")))
            self.assertEqual(str(error), message)
        place = Place("mosn.json") / "servers" / 0 / "routers" / 2
        error = self.assertRaises(ConfigError, Router, config(virtual_host(["a", "a*", "a"])), place)
        self.assertEqual(
            [str(problem) for problem in error.problems],
            [
                "mosn.json: servers[0].routers[2].virtual_hosts[0].domains[1]: "
                "in 'a*', '*' may only be the first character",
                "mosn.json: servers[0].routers[2].virtual_hosts[0].domains[2]: 'a' occurs twice",
            ],
        )

    def test_samePortDifferentHosts(self) -> None:
        """The same host with different ports is no duplicate."""
        table = by_domain("a:1", "a:2", "a", "*.a:1", "*.a:2")
        self.assertEqual(cluster(table.match(facts(host="x.a:2"))), "*.a:2")

    def test_empty(self) -> None:
        """A router without virtual hosts, or one that can't be reached, matches nothing and says so."""
        table = router()
        self.assertIsNone(table.match(facts()))
        self.assertEqual(
            [str(w) for w in table.warnings], ["virtual_hosts: there is none, so nothing will match"]
        )
        table = router(virtual_host([], rule(prefix="/")))
        self.assertIsNone(table.match(facts()))
        self.assertEqual(
            [str(w) for w in table.warnings],
            ["virtual_hosts[0].domains: is empty, so it will never match"],
        )
        self.assertIsNone(rules().match(facts()))

    @settings(deadline=None)
    @given(
        st.sets(st.text("ab.", max_size=4), max_size=6),
        st.sets(st.text("ab.", min_size=1, max_size=4), max_size=6),
        st.text("ab.", min_size=1, max_size=6),
    )
    def test_longestSuffix(self, suffixes: set[str], exact: set[str], host: str) -> None:
        """Among wildcards the longest that leaves a character wins, after exact ones."""
        domains = [f"*{suffix}:*" for suffix in suffixes if suffix] + [f"{name}:*" for name in exact]
        candidates = [suffix for suffix in suffixes if suffix and len(suffix) < len(host)]
        matching = [suffix for suffix in candidates if host.endswith(suffix)]
        if host in exact:
            expected = f"{host}:*"
        elif matching:
            expected = f"*{max(matching, key=len)}:*"
        else:
            expected = "*"
        self.assertEqual(cluster(by_domain("*", *domains).match(facts(host=host))), expected)


class RuleTests(SynchronousTestCase):
    """The kinds of rules."""

    def matches(self, table: RouterRuleConfig, request: RouteInput, expected: bool) -> None:
        """Check one rule, alone and among others."""
        for each in [rules(table), rules(rule("other", prefix="/never"), table)]:
            self.assertEqual(cluster(each.match(request)), "c" if expected else None, (table, request))

    def test_prefix(self) -> None:
        """A prefix is compared as it is."""
        for prefix, path, expected in [
            ("/", "/", True),
            ("/", "/a/b", True),
            ("/", "", False),
            ("/", "*", False),
            ("/a", "/a", True),
            ("/a", "/ab", True),
            ("/a", "/A", False),
            ("/a/", "/a", False),
            ("/é", "/école", True),
        ]:
            self.matches(rule(prefix=prefix), facts(path), expected)

    def test_path(self) -> None:
        """A path is compared whole, in any case."""
        for path, requested, expected in [
            ("/a", "/a", True),
            ("/a", "/A", True),
            ("/Ab", "/aB", True),
            ("/a", "/a/", False),
            ("/a", "", False),
            ("/École", "/éCOLE", True),
            # one character at a time, as in Go: a sharp s is not "ss"
            ("/straße", "/strasse", False),
            ("/straße", "/STRAẞE", True),
            ("/k", "/\u212a", True),
            ("/i", "/\u0130", False),
        ]:
            self.matches(rule(path=path), facts(requested), expected)

    def test_regex(self) -> None:
        """A regular expression is searched in the path."""
        for regex, path, expected in [
            ("a.c", "/xxabcxx", True),
            ("^/a.c$", "/abc", True),
            ("^/a.c$", "/abcd", False),
            (".*", "/", True),
            (".*", "", False),
            ("", "/", True),
            (r"/\d+/", "/a/12/b", True),
            ("(?i)/ABC", "/abc", True),
            ("^/.$", "/é", True),
            # a byte that is not UTF-8 counts as one character, as in Go
            ("^/.$", "/\udcff", True),
            ("^/a$", "/\udcff", False),
        ]:
            self.matches(rule(regex=regex), facts(path), expected)

    def test_regexIsLinear(self) -> None:
        """A pattern that hangs backtracking engines is searched in no time."""
        table = rules(rule(regex="^/(a*)*(a*)*(a|aa)+$"))
        start = time.perf_counter()
        self.assertIsNone(table.match(facts("/" + "a" * 20000 + "!")))
        self.assertLess(time.perf_counter() - start, 5.0)

    def test_kinds(self) -> None:
        """The first of prefix, path and regex makes the kind; the others don't count."""
        self.matches(rule(prefix="/a", path="/b", regex="c"), facts("/a"), True)
        self.matches(rule(prefix="/a", path="/b", regex="c"), facts("/b"), False)
        self.matches(rule(path="/b", regex="c"), facts("/b"), True)
        self.matches(rule(path="/b", regex="c"), facts("/c"), False)

    def test_order(self) -> None:
        """Rules are tried in order."""
        table = rules(rule("1", path="/a"), rule("2", prefix="/a"), rule("3", prefix="/"))
        for path, expected in [("/a", "1"), ("/ab", "2"), ("/b", "3"), ("", None)]:
            self.assertEqual(cluster(table.match(facts(path))), expected)

    def test_headers(self) -> None:
        """All headers must be there and match."""
        exact = {"name": "X-One", "value": "1"}
        regex = {"name": "x-two", "value": "^b+$", "regex": True}
        empty = {"name": "x-empty", "value": ""}
        for headers, request, expected in [
            ([exact], facts(x_one="1"), True),
            ([exact], facts(x_one="11"), False),
            ([exact], facts(), False),
            ([{**exact, "value": "a"}], facts(x_one="A"), False),
            ([regex], facts(x_two="bb"), True),
            ([regex], facts(x_two="abb"), False),
            ([regex], facts(), False),
            ([{**regex, "value": "b"}], facts(x_two="abc"), True),
            ([regex], facts(x_two="b\udcff"), False),
            ([exact, regex], facts(x_one="1", x_two="b"), True),
            ([exact, regex], facts(x_one="1"), False),
            ([exact, regex], facts(x_two="b"), False),
            ([empty], facts(x_empty=""), True),
            ([empty], facts(), False),
        ]:
            for kind in [{"prefix": "/"}, {"path": "/"}, {"regex": "/"}, {}]:
                self.matches(rule(headers=headers, **kind), request, expected)

    def test_headersAndPath(self) -> None:
        """Headers alone are not enough for a rule with a path."""
        self.matches(rule(prefix="/a", headers=[{"name": "x", "value": "1"}]), facts("/b", x="1"), False)

    def test_headersAreLookedUpLate(self) -> None:
        """No header is asked for when the path does not match or no rule wants one."""

        def never(name: str) -> str | None:
            raise AssertionError(name)

        request = RouteInput("GET", "/b", "", "h", never)
        table = rules(rule("1", prefix="/a", headers=[{"name": "x", "value": "1"}]), rule("2", prefix="/"))
        self.assertEqual(cluster(table.match(request)), "2")

    def test_method(self) -> None:
        """The name "method" stands for the request method, compared exactly."""
        for kind in [{"prefix": "/"}, {"path": "/"}, {"regex": "/"}]:
            get = rule(headers=[{"name": "method", "value": "GET"}], **kind)
            self.matches(get, facts(method="GET"), True)
            self.matches(get, facts(method="get"), False)
            self.matches(get, RouteInput("POST", "/", "", "h", {"method": "GET"}.get), False)
            # regex has no meaning there
            any_method = rule(headers=[{"name": "method", "value": ".*", "regex": True}], **kind)
            self.matches(any_method, facts(method="GET"), False)
            # another case of the name is a header
            header = rule(headers=[{"name": "Method", "value": "GET"}], **kind)
            self.matches(header, facts(method="GET"), False)
            self.matches(
                rule(headers=[{"name": "method", "value": "GET"}, {"name": "x", "value": "1"}], **kind),
                facts(method="GET"),
                False,
            )

    def test_methodInHeaderRule(self) -> None:
        """In a header-only rule, "method" is a header like any other."""
        header = rule(headers=[{"name": "method", "value": "GET"}])
        self.matches(header, facts(method="GET"), False)
        request = RouteInput("POST", "/", "", "h", {"method": "GET"}.get)
        self.matches(header, request, True)

    def test_headerOnly(self) -> None:
        """A rule without a path takes any path, even an empty one."""
        header = rule(headers=[{"name": "x", "value": "1"}])
        self.matches(header, facts("", x="1"), True)
        self.matches(header, facts("/anything", x="1"), True)
        self.matches(rule(), facts(""), True)

    def test_service(self) -> None:
        """A single header named "service" is the compatible fast match."""
        for value, regex, service, expected in [
            (".*", False, "anything", True),
            (".*", True, "anything", True),
            (".*", False, "", False),
            (".*", False, None, False),
            ("a", False, "a", True),
            ("a", False, "b", False),
            # the regex flag counts for nothing
            ("a.*", True, "abc", False),
            ("a.*", True, "a.*", True),
            # no value: an ordinary header
            ("", False, "", True),
            ("", False, "x", False),
            ("", False, None, False),
        ]:
            table = rule(headers=[{"name": "service", "value": value, "regex": regex}])
            request = facts() if service is None else facts(service=service)
            self.matches(table, request, expected)

    def test_serviceElsewhere(self) -> None:
        """The fast match needs exactly that name, one header and no path."""
        dots = {"name": "service", "value": ".*"}
        self.matches(rule(headers=[{**dots, "name": "Service"}]), facts(service="x"), False)
        self.matches(rule(headers=[dots, {"name": "x", "value": "1"}]), facts(service="y", x="1"), False)
        self.matches(rule(prefix="/", headers=[dots]), facts(service="x"), False)
        self.matches(rule(prefix="/", headers=[{**dots, "regex": True}]), facts(service="x"), True)

    def test_badHeaderRegex(self) -> None:
        """A header whose pattern does not compile is ignored, as in MOSN, with a warning."""
        bad = {"name": "x", "value": "(", "regex": True}
        table = rules(rule(prefix="/", headers=[{"name": "y", "value": "1"}, bad]), rule("2", headers=[bad]))
        self.assertEqual(cluster(table.match(facts(y="1"))), "c")
        self.assertEqual(cluster(table.match(facts())), "2")
        self.assertEqual(
            [w.path for w in table.warnings],
            [
                "virtual_hosts[0].routers[0].match.headers[1].value",
                "virtual_hosts[0].routers[1].match.headers[0].value",
            ],
        )
        for warning in table.warnings:
            self.assertRegex(warning.message, r"\A'\(' is not RE2 \(.+\), so this condition is ignored\Z")

    def test_badPathRegex(self) -> None:
        """A path pattern that does not compile is an error."""
        bad = RouterRuleConfig(
            match=MatchConfig.model_construct(**{**dict(MatchConfig()), "regex": "a{2,1}"}),
            route=RouteActionConfig(cluster_name="c"),
        )
        error = self.assertRaises(ConfigError, rules, bad)
        self.assertRegex(
            str(error), r"\Avirtual_hosts\[0\]\.routers\[0\]\.match\.regex: 'a\{2,1\}' is not RE2: .+"
        )

    def variables(self, *matchers: dict[str, str]) -> RouterRuleConfig:
        """A rule that looks at variables."""
        return RouterRuleConfig(
            match=MatchConfig(variables=matchers), route=RouteActionConfig(cluster_name="c")
        )

    def test_variables(self) -> None:
        """A variable equals a value, or a pattern is found in it; without a value it is empty."""
        for matcher, request, expected in [
            ({"name": "x-mosn-method", "value": "GET"}, facts(), True),
            ({"name": "x-mosn-method", "value": "get"}, facts(), False),
            ({"name": "x-mosn-path", "regex": "b$"}, facts("/ab"), True),
            ({"name": "x-mosn-path", "regex": "b$"}, facts("/ba"), False),
            ({"name": "x-mosn-querystring", "value": "a=1"}, facts(query="a=1"), True),
            ({"name": "request_header_x", "value": "1"}, facts(x="1"), True),
            ({"name": "request_header_x", "value": "1"}, facts(), False),
            ({"name": "request_header_x", "regex": "^$"}, facts(), True),
            ({"name": "request_header_x", "regex": ".+"}, facts(), False),
            # the pattern counts rather than the value
            ({"name": "x-mosn-method", "value": "PUT", "regex": "G"}, facts(), True),
            ({"name": "x-mosn-method", "value": "GET", "regex": "P"}, facts(), False),
        ]:
            self.matches(self.variables(matcher), request, expected)

    def test_variablesTogether(self) -> None:
        """The model of each ties it to the next one: "or" separates what holds together."""
        for models in ["and and and", "or or or", "and or and", "or and or", "and and or", "or or and"]:
            for held in range(8):
                holds = [bool(held >> i & 1) for i in range(3)]
                matchers = [
                    {"name": "x-mosn-method", "value": "GET" if hold else "PUT", "model": model}
                    for hold, model in zip(holds, models.split(), strict=True)
                ]
                text = " ".join(f"{hold} {model}" for hold, model in zip(holds, models.split(), strict=True))
                expected = eval(text.rpartition(" ")[0])  # Python binds "and" tighter as well
                self.matches(self.variables(*matchers), facts(), expected)

    def test_variablesThatNeverHold(self) -> None:
        """A condition that can't hold is a warning, and takes those with it that it is tied to."""
        good = {"name": "x-mosn-method", "value": "GET"}
        for bad, path, reason in [
            ({"name": "x", "value": "1"}, ".name", "there is no variable 'x', so this condition never holds"),
            ({"name": "response_code", "regex": ".*"}, ".name",
             "there is no variable 'response_code', so this condition never holds"),
            ({"name": "x-mosn-method"}, "", "has neither value nor regex, so this condition never holds"),
        ]:  # fmt: skip
            for matchers, index, expected in [
                ([bad], 0, False),
                ([good, bad], 1, False),
                ([bad, good], 0, False),
                ([{**bad, "model": "or"}, good], 0, True),
                ([{**good, "model": "or"}, bad], 1, True),
                ([{**good, "model": "or"}, good, bad], 2, True),
                ([bad, {**good, "model": "or"}, good], 0, True),
                ([good, {**bad, "model": "or"}, {**good, "value": "PUT"}], 1, False),
            ]:
                table = self.variables(*matchers)
                self.matches(table, facts(), expected)
                place = f"virtual_hosts[0].routers[0].match.variables[{index}]{path}"
                self.assertEqual([str(w) for w in rules(table).warnings], [f"{place}: {reason}"])

    def test_badVariableRegex(self) -> None:
        """A pattern that does not compile is an error."""
        bad = VariableMatcherConfig.model_construct(name="x-mosn-path", value="", regex="(", model="and")
        match = MatchConfig.model_construct(**{**dict(MatchConfig()), "variables": (bad,)})
        table = RouterRuleConfig(match=match, route=RouteActionConfig(cluster_name="c"))
        error = self.assertRaises(ConfigError, rules, table)
        self.assertRegex(str(error), r"match\.variables\[0\]\.regex: '\(' is not RE2: .+")

    def test_rpc(self) -> None:
        """Requests that have headers only are taken by rules that look at nothing else."""
        request = RouteInput.of_rpc({"service": "a", "x": "1"}.get, "bolt")
        for match, expected in [
            ({"prefix": "/"}, False),
            ({"path": "/"}, False),
            ({"regex": ".*"}, False),
            ({"headers": ({"name": "service", "value": ".*"},)}, True),
            ({"headers": ({"name": "service", "value": "a"},)}, True),
            ({"headers": ({"name": "service", "value": "b"},)}, False),
            ({"headers": ({"name": "x", "value": "1"}, {"name": "service", "value": "a"})}, True),
            ({"headers": ({"name": "x", "value": "2"},)}, False),
            ({"headers": ()}, True),
            ({"variables": ({"name": "protocol", "value": "bolt"},)}, True),
            ({"variables": ({"name": "x-mosn-path", "regex": "^$"},)}, True),
        ]:
            table = RouterRuleConfig(match=MatchConfig(**match), route=RouteActionConfig(cluster_name="c"))
            self.matches(table, request, expected)
        taking = rule(headers=[{"name": "service", "value": ".*"}])
        self.assertIsNone(router(virtual_host(["*"], taking), virtual_host(["a"], taking)).match(request))

    def test_expressions(self) -> None:
        """A rule with expressions is not supported: it never matches, rather than everything."""
        match = MatchConfig(dsl_expressions=[{"expression": "true"}])
        odd = RouterRuleConfig(match=match, route=RouteActionConfig(cluster_name="odd"))
        table = rules(odd, rule("2", prefix="/"))
        self.assertEqual(cluster(table.match(facts())), "2")
        self.assertEqual(
            [str(w) for w in table.warnings],
            [
                "virtual_hosts[0].routers[0].match.dsl_expressions: "
                "is not supported, so this rule will never match"
            ],
        )

    @settings(deadline=None)
    @given(st.text(), st.text(min_size=1), st.text(min_size=1))
    def test_anyText(self, path: str, pattern: str, header: str) -> None:
        """No path or header makes a router raise, surrogates included."""
        table = rules(
            rule("path", path=pattern),
            rule("regex", regex="^.b"),
            rule("header", headers=[{"name": "x", "value": "^.b", "regex": True}]),
            rule("service", headers=[{"name": "service", "value": ".*"}]),
        )
        result = cluster(table.match(facts(path, x=header, service=header)))
        if path == pattern:
            self.assertEqual(result, "path")
        elif result != "path":
            self.assertEqual(
                result,
                "regex"
                if path[1:2] == "b" and path[:1] != "\n"
                else "header"
                if header[1:2] == "b" and header[:1] != "\n"
                else "service",
            )

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(["prefix", "path"]), st.text("/aB", min_size=1)), max_size=6),
        st.text("/abB", max_size=6),
    )
    def test_firstMatch(self, kinds: list[tuple[str, str]], path: str) -> None:
        """The first rule that takes a path decides."""
        table = rules(*(rule(str(i), **{kind: text}) for i, (kind, text) in enumerate(kinds)))
        expected = next(
            (
                str(i)
                for i, (kind, text) in enumerate(kinds)
                if path and (path.startswith(text) if kind == "prefix" else path.lower() == text.lower())
            ),
            None,
        )
        self.assertEqual(cluster(table.match(facts(path))), expected)


class OnlyTests(SynchronousTestCase):
    """What needs no look at a request."""

    def test_everything_to_one_cluster(self) -> None:
        for table in (rules(rule("a", prefix="/")), rules(rule("a", prefix="/"), rule("b", prefix="/b"))):
            self.assertEqual(cluster(table.unconditional_route), "a")
            self.assertIs(table.match(facts("/b")), table.unconditional_route)
            self.assertIsNone(table.match(facts("*")))

    def test_anything_else_counts(self) -> None:
        for table in (
            rules(),
            rules(rule("a", prefix="/a")),
            rules(rule("a", path="/")),
            rules(rule("b", prefix="/b"), rule("a", prefix="/")),
            rules(rule("a", prefix="/", headers=[{"name": "method", "value": "GET"}])),
            rules(rule("a", prefix="/", headers=[{"name": "x", "value": "y"}])),
            rules(RouterRuleConfig(match=MatchConfig(prefix="/"))),
            by_domain("*", "a.example.com"),
            by_domain("*:80"),
            by_domain("*.example.com", "*"),
        ):
            self.assertIsNone(table.unconditional_route)

    def test_weights_are_drawn(self) -> None:
        route = RouteActionConfig.model_validate(
            {"weighted_clusters": [{"cluster": {"name": name, "weight": 1}} for name in "ab"]}
        )
        table = rules(RouterRuleConfig(match=MatchConfig(prefix="/"), route=route))
        self.assertIsNone(table.unconditional_route)

    def test_other_results(self) -> None:
        table = rules(
            RouterRuleConfig(match=MatchConfig(prefix="/"), direct_response=DirectResponseConfig(status=418))
        )
        self.assertEqual(table.unconditional_route, DirectResponse(418))

    def test_plain(self) -> None:
        self.assertTrue(ClusterRoute("a", 3.0).has_no_transforms)
        for options in (
            {"upstream_protocol": "Http2"},
            {"metadata": {"a": "b"}},
            {"auto_host_rewrite": True},
            {"mirrors": (Mirror("m", 100),)},
        ):
            self.assertFalse(ClusterRoute("a", **options).has_no_transforms, options)


class OutcomeTests(SynchronousTestCase):
    """What a matched rule does."""

    def outcome(self, request: RouteInput | None = None, **actions: Any) -> RouteResult | None:
        """The result of a rule that matches; alone and among others it is the same."""
        this = RouterRuleConfig(match=MatchConfig(prefix="/"), **actions)
        request = request or facts("/a", host="h")
        alone = rules(this).match(request)
        self.assertEqual(rules(rule("other", prefix="/never"), this, rule("next")).match(request), alone)
        return alone

    def test_timeout(self) -> None:
        """Absent or 0 gives the default, negative none."""
        for timeout, expected in [(0.0, 60.0), (1.5, 1.5), (-1.0, 0.0)]:
            route = RouteActionConfig(cluster_name="c", timeout=timeout)
            self.assertEqual(
                self.outcome(route=route), ClusterRoute("c", expected, "v", timeout_said=timeout != 0)
            )
        self.assertEqual(
            self.outcome(route=RouteActionConfig(cluster_name="c")), ClusterRoute("c", 60.0, "v")
        )

    def test_noCluster(self) -> None:
        """A matching rule without a cluster ends the search with nothing, with a warning."""
        for actions in [{}, {"route": RouteActionConfig()}]:
            self.assertIsNone(self.outcome(**actions))
        table = rules(RouterRuleConfig())
        self.assertEqual(
            [str(w) for w in table.warnings],
            ["virtual_hosts[0].routers[0].route: names no cluster, so requests that match get status 404"],
        )

    def test_directResponse(self) -> None:
        """A direct response wins over everything else."""
        self.assertEqual(
            self.outcome(
                direct_response=DirectResponseConfig(status=418, body="té"),
                redirect=RedirectConfig(),
                route=RouteActionConfig(cluster_name="c"),
            ),
            DirectResponse(418, "té".encode()),
        )
        self.assertEqual(
            self.outcome(direct_response=DirectResponseConfig(status=204)), DirectResponse(204, b"")
        )

    def test_directStatus(self) -> None:
        """0 stands for 200; a status that can't end a response is an error."""
        zero = DirectResponseConfig.model_construct(status=0, body="x")
        self.assertEqual(self.outcome(direct_response=zero), DirectResponse(200, b"x"))
        for status in [100, 99, 600]:
            config = DirectResponseConfig.model_construct(status=status, body="")
            error = self.assertRaises(ConfigError, self.outcome, direct_response=config)
            self.assertEqual(
                str(error),
                f"virtual_hosts[0].routers[0].direct_response.status: {status} is not a final HTTP status",
            )

    def test_redirect(self) -> None:
        """The parts that are not configured come from the request; the query always does."""
        for redirect, request, status, location in [
            ({}, facts("/a", host="h:81"), 301, "http://h:81/a"),
            ({}, facts("/a", host="h", query="x=1&y=%20"), 301, "http://h/a?x=1&y=%20"),
            ({"path_redirect": "/b"}, facts("/a", host="h", query="q"), 301, "http://h/b?q"),
            ({"path_redirect": "b"}, facts("/a", host="h"), 301, "http://h/b"),
            ({"host_redirect": "new:8080"}, facts("/a", host="h"), 301, "http://new:8080/a"),
            ({"response_code": 308}, facts("/a", host="h"), 308, "http://h/a"),
            ({"scheme_redirect": "HTTPS"}, facts("/a", host="h"), 301, "https://h/a"),
            # the other scheme's default port goes
            ({"scheme_redirect": "https"}, facts("/a", host="h:80"), 301, "https://h/a"),
            ({"scheme_redirect": "https"}, facts("/a", host="h:8080"), 301, "https://h:8080/a"),
            ({"scheme_redirect": "https"}, facts("/a", host="h:443"), 301, "https://h:443/a"),
            ({"scheme_redirect": "http"}, facts("/a", host="h:443", scheme="https"), 301, "http://h/a"),
            ({"scheme_redirect": "https"}, facts("/a", host="[::1]:80"), 301, "https://[::1]/a"),
            ({"scheme_redirect": "http"}, facts("/a", host="h:80"), 301, "http://h:80/a"),
            ({"scheme_redirect": "https", "host_redirect": "n:80"}, facts("/a"), 301, "https://n/a"),
            # escaping, of the path in the decoded form
            ({}, facts("/a b?é\udcff%", host="h"), 301, "http://h/a%20b%3F%C3%A9%FF%25"),
            ({}, facts("/a;b=c,d@e:f&g+h$", host="h"), 301, "http://h/a;b=c,d@e:f&g+h$"),
            ({"path_redirect": "/b?c=d"}, facts("/a", host="h"), 301, "http://h/b%3Fc=d"),
            # nothing gets out of its place
            ({}, facts("/a\r\nb", host="h\r\n x/", query="q\r\n q"), 301,
             "http://h%0D%0A%20x%2F/a%0D%0Ab?q%0D%0A%20q"),
            ({"path_redirect": "/\ud800"}, facts("/a", host="h"), 301, "http://h/%3F"),
        ]:  # fmt: skip
            self.assertEqual(
                self.outcome(request, redirect=RedirectConfig(**redirect)), Redirect(status, location)
            )

    def test_redirectBeatsRoute(self) -> None:
        """A redirect wins over a route."""
        result = self.outcome(redirect=RedirectConfig(), route=RouteActionConfig(cluster_name="c"))
        self.assertEqual(result, Redirect(301, "http://h/a"))

    def test_redirectWithoutSlash(self) -> None:
        """What does not begin with a slash can't run into the host."""
        table = rules(RouterRuleConfig(redirect=RedirectConfig(host_redirect="n")))
        self.assertEqual(table.match(facts("*", host="h")), Redirect(301, "http://n/%2A"))

    def test_redirectRefused(self) -> None:
        """An impossible scheme or status is an error."""
        for key, value, message in [
            ("scheme_redirect", "1a", "'1a' is not a URL scheme"),
            ("scheme_redirect", "a b", "'a b' is not a URL scheme"),
            ("response_code", 300, "300 is none of 301, 302, 303, 307, 308 or 0 for 301"),
        ]:
            redirect = RedirectConfig.model_construct(**{**dict(RedirectConfig()), key: value})
            error = self.assertRaises(ConfigError, self.outcome, redirect=redirect)
            self.assertEqual(str(error), f"virtual_hosts[0].routers[0].redirect.{key}: {message}")

    def test_redirectDefaultStatus(self) -> None:
        """Status 0 means 301."""
        redirect = RedirectConfig.model_construct(**{**dict(RedirectConfig()), "response_code": 0})
        self.assertEqual(self.outcome(redirect=redirect), Redirect(301, "http://h/a"))

    @settings(deadline=None)
    @given(
        st.binary().map(lambda data: "/" + data.decode("utf-8", "surrogateescape")),
        st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
        st.binary().map(lambda data: data.decode("utf-8", "surrogateescape")),
    )
    def test_locationIsSafe(self, path: str, query: str, host: str) -> None:
        """Whatever the request, a location is printable ASCII that leads to the same path."""
        result = self.outcome(facts(path, host=host, query=query), redirect=RedirectConfig())
        assert isinstance(result, Redirect)
        self.assertRegex(result.location, r"\A[\x21-\x7e]*\Z")
        target = result.location.partition("://")[2].partition("?")[0]
        self.assertEqual(
            unquote_to_bytes("/" + target.partition("/")[2]), path.encode("utf-8", "surrogateescape")
        )
        self.assertEqual(urlsplit("http://h/?" + result.location.partition("?")[2]).netloc, "h")
