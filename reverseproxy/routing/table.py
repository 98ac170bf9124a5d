"""
The table of a router: virtual hosts and their rules.

A L{Router} is built once from its configuration; L{Router.match} is called for
every request, so everything that can be decided beforehand is: each virtual
host and each rule becomes a small function, and results that do not depend on
the request are made once.

The order is MOSN's, read in C{mosn.io/mosn}:

  - virtual hosts by domain: C{pkg/router/routers_impl.go};
  - the kinds of rules: C{NewRouteBase} in C{pkg/router/virtualhost.go}, the
    rules themselves in C{http_rule.go}, C{variable_rule.go} and C{rpc_rule.go},
    header matchers in C{pkg/router/configutility.go}.

A rule with C{dsl_expressions} never matches.  MOSN takes these to be CEXL, a
dialect of Google's Common Expression Language with Go's syntax, over some eighty
attributes of Istio's, with functions that change the request while it is being
matched.
"""

from __future__ import annotations

__all__ = ["Router"]

import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.routing.actions import Level, compile_action
from reverseproxy.routing.facts import RouteInput
from reverseproxy.routing.hosts import Domains
from reverseproxy.routing.matching import (
    DEAD_END,
    Demand,
    HeaderTest,
    Matcher,
    Rule,
    Test,
    first_of,
    nothing,
    path_test,
    prefix_test,
    regex_test,
    rooted,
    service_test,
    variables_test,
    with_headers,
)
from reverseproxy.routing.patterns import PatternError, compile_search
from reverseproxy.routing.results import RouteResult
from reverseproxy.routing.variables import find_variable

if TYPE_CHECKING:
    from reverseproxy.config.models import (
        HeaderMatcherConfig,
        MatchConfig,
        RouterConfig,
        RouterRuleConfig,
        VariableMatcherConfig,
        VirtualHostConfig,
    )


class Router:
    """
    The routing table of one C{router_config_name}.

    @ivar name: the C{router_config_name}.
    @ivar unconditional_route: the result for every request whose target begins with a slash, if
        nothing else of a request counts; L{None} if something does.
    @ivar warnings: parts of the configuration that have no effect; the caller
        logs them.
    """

    def __init__(
        self,
        config: RouterConfig,
        where: Place = DOCUMENT,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """
        Build the table.

        @param config: the validated configuration.
        @param where: the place of C{config} in its document, for error messages.
        @param draw: gives random numbers from 0 to 1, less than 1, for weighted
            clusters.
        @raise ConfigError: for everything that MOSN refuses as well: domains
            that are empty, occur twice or have an asterisk inside, a regular
            expression for paths that does not compile, a redirect with an
            impossible scheme or status; and for what makes it crash: clusters
            whose weights are all 0.
        """
        notes = Diagnostics()
        self.name = config.router_config_name
        compiler = _Compiler(config, where, notes, draw)
        self._match = compiler.table()
        self.unconditional_route: RouteResult | None = compiler.unconditional_route
        self._domains = compiler.domains
        self._unconditional = compiler.unconditional
        self._bare = config.model_copy(update={"virtual_hosts": ()})
        self._draw = draw
        self._added: dict[str, tuple[VirtualHostConfig, tuple[str, ...]]] = {}
        notes.raise_errors()
        self.warnings: tuple[Problem, ...] = notes.warnings

    def take_over(self, other: Router) -> None:
        """
        Take the rules of another table, from the next request on.

        So a reload needs no new references to this object.
        """
        self.name = other.name
        self._match = other._match
        self.unconditional_route = other.unconditional_route
        self._domains = other._domains
        self._unconditional = other._unconditional
        self._bare = other._bare
        self.warnings = other.warnings
        added, self._added = self._added, {}
        for host, _ in added.values():
            try:
                self.add_host(host)
            except ValueError:
                self._added[host.name] = host, ()  # the configuration has it now

    def match(self, facts: RouteInput) -> RouteResult | None:
        """
        Return what to do with a request.

        @return: L{None} if no rule matches, or the one that does names no
            cluster: answer 404.
        """
        return self._match(facts)

    # while it is in use

    def has_domain(self, domain: str) -> bool:
        """Return whether there is a virtual host for exactly this domain, with no port or with any."""
        return self._domains.has(domain) or self._domains.has(f"{domain}:*")

    def add_host(self, host: VirtualHostConfig) -> None:
        """
        Add a virtual host, which stays when L{take_over} replaces the rules.

        @param host: its name must differ from those of other added hosts.
        @raise ValueError: if one of its domains is malformed, or there already.
        @raise ConfigError: if its rules are wrong.
        """
        notes = Diagnostics()
        place = Place(f"virtual host {host.name}")
        rules = _Compiler(self._bare, place, notes, self._draw).virtual_host(host, place)
        notes.raise_errors()
        added: list[str] = []
        for domain in host.domains:
            problem = f"{domain!r} occurs twice" if self._domains.has(domain) else ""
            problem = problem or self._domains.add(domain, rules)
            if problem:
                for each in added:
                    self._domains.remove(each)
                raise ValueError(problem)
            added.append(domain)
        self._added[host.name] = host, tuple(added)
        self._changed()

    def remove_host(self, host: VirtualHostConfig) -> None:
        """Remove a virtual host that L{add_host} has added."""
        _, domains = self._added.pop(host.name)
        for domain in domains:
            self._domains.remove(domain)
        self._changed()

    def _changed(self) -> None:
        self._match = self._domains.matcher()
        self.unconditional_route = None if self._domains.by_name else self._unconditional

    def explain(self, host: str) -> str:
        """
        Explain why a request had no match, as far as that is due to its Host.

        @param host: its L{RouteInput.host}.
        @return: a sentence for the log; empty if a virtual host matches, but none of
            its rules.
        """
        return self._domains.explain(host)


class _Compiler:
    """Compiles configuration to functions."""

    def __init__(
        self, config: RouterConfig, place: Place, notes: Diagnostics, draw: Callable[[], float]
    ) -> None:
        self._config = config
        self._place = place
        self._notes = notes
        self._draw = draw
        self._first: dict[Matcher, Rule] = {}
        self.domains = Domains(config.ignore_host_port)
        self.unconditional_route: RouteResult | None = None
        self.unconditional: RouteResult | None = None

    # Virtual hosts

    def table(self) -> Matcher:
        """Compile the whole table to one function."""
        notes = self._notes
        hosts = self._config.virtual_hosts
        if not hosts:
            notes.warn(self._place / "virtual_hosts", "there is none, so nothing will match")
        domains = self.domains
        for i, host in enumerate(hosts):
            path = self._place / "virtual_hosts" / i
            rules = self.virtual_host(host, path)
            if not host.domains:
                notes.warn(path / "domains", "is empty, so it will never match")
            for j, domain in enumerate(host.domains):
                problem = domains.add(domain, rules)
                if problem:
                    notes.error(path / "domains" / j, problem)
        test, outcome = self._first.get(domains.default or nothing, (None, DEAD_END))
        if test is rooted and not callable(outcome) and outcome is not DEAD_END:
            self.unconditional = outcome
        if not domains.by_name:
            self.unconditional_route = self.unconditional
        return domains.matcher()

    def virtual_host(self, host: VirtualHostConfig, path: Place) -> Matcher:
        """Compile the rules of one virtual host to one function."""
        levels = [Level(host, path), Level(self._config, self._place)]
        rules = [
            rule
            for i, config in enumerate(host.routers)
            if (rule := self._rule(config, host.name, levels, path / "routers" / i)) is not None
        ]
        matcher = first_of(rules)
        if rules:
            self._first[matcher] = rules[0]
        return matcher

    # Rules

    def _rule(
        self, config: RouterRuleConfig, virtual_host: str, levels: Sequence[Level], path: Place
    ) -> Rule | None:
        """Compile a rule; L{None} if it can never match."""
        outcome = compile_action(config, virtual_host, levels, path, self._draw, self._notes)
        test = self._test(config.match, path / "match")
        return None if test is None else (test, outcome)

    def _test(self, match: MatchConfig, place: Place) -> Test | None:
        """Compile the test of a rule; L{None} if it can never match."""
        test: Test
        if match.prefix:
            test = prefix_test(match.prefix)
        elif match.path:
            test = path_test(match.path)
        elif match.regex:
            try:
                test = regex_test(compile_search(match.regex))
            except PatternError as error:
                self._notes.error(place / "regex", f"{match.regex!r} is not RE2: {error}")
                return None
        elif match.variables:
            return self._variables_test(match.variables, place / "variables")
        elif match.dsl_expressions:
            # Falling through to a header rule would make it match everything.
            self._notes.warn(place / "dsl_expressions", "is not supported, so this rule will never match")
            return None
        else:
            return self._rpc_test(match.headers, place)
        method: str | None = None
        headers: list[tuple[str, HeaderTest]] = []
        for i, header in enumerate(match.headers):
            if header.name == "method":
                method = header.value
            else:
                headers += self._header_test(header, place / "headers" / i)
        return with_headers(test, method, headers)

    def _rpc_test(self, matchers: Sequence[HeaderMatcherConfig], place: Place) -> Test:
        """The test of a rule that looks at headers alone."""
        if len(matchers) == 1 and matchers[0].name == "service" and matchers[0].value:
            return service_test(matchers[0].value)
        headers: list[tuple[str, HeaderTest]] = []
        for i, header in enumerate(matchers):
            headers += self._header_test(header, place / "headers" / i)
        return with_headers(None, None, headers)

    def _header_test(self, config: HeaderMatcherConfig, path: Place) -> Iterator[tuple[str, HeaderTest]]:
        """Name and value test of one matcher; none if it is to be ignored."""
        name = config.name.lower()
        if not config.regex:
            yield name, config.value.__eq__
            return
        try:
            yield name, compile_search(config.value)
        except PatternError as error:
            # MOSN drops it too, which makes the rule match more than was meant.
            self._notes.warn(
                path / "value", f"{config.value!r} is not RE2 ({error}), so this condition is ignored"
            )

    def _variables_test(self, matchers: Sequence[VariableMatcherConfig], place: Place) -> Test | None:
        """The test of a rule that looks at variables; L{None} if none of it can hold."""
        alternatives: list[list[Demand]] = []
        demands: list[Demand] | None = []
        for i, matcher in enumerate(matchers):
            demand = self._demand(matcher, place / i)
            if demand is None or demands is None:
                demands = None  # all of this alternative must hold, which is impossible now
            else:
                demands.append(demand)
            if matcher.model == "or" or i == len(matchers) - 1:
                if demands is not None:
                    alternatives.append(demands)
                demands = []
        return variables_test(alternatives) if alternatives else None

    def _demand(self, matcher: VariableMatcherConfig, path: Place) -> Demand | None:
        """What is demanded of a variable; L{None} if that can never hold."""
        getter = find_variable(matcher.name)
        if getter is None:
            self._notes.warn(
                path / "name", f"there is no variable {matcher.name!r}, so this condition never holds"
            )
            return None
        if not matcher.regex:
            if not matcher.value:
                self._notes.warn(path, "has neither value nor regex, so this condition never holds")
                return None
            return Demand(getter, matcher.value.__eq__)
        try:
            return Demand(getter, compile_search(matcher.regex))
        except PatternError as error:
            self._notes.error(path / "regex", f"{matcher.regex!r} is not RE2: {error}")
            return None
