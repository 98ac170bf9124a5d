"""
From what is known of a request to what shall happen with it.  Pure.

A L{Router} is built once from its configuration; L{Router.match} is asked for
every request, so everything that can be decided beforehand is: each virtual
host and each rule becomes a small function, and results that do not depend on
the request are made once.

The order of things is MOSN's, read in C{mosn.io/mosn}:

  - virtual hosts by domain: C{pkg/router/routers_impl.go};
  - the kinds of rules: C{NewRouteBase} in C{pkg/router/virtualhost.go}, the
    rules themselves in C{pkg/router/http_rule.go} and C{rpc_rule.go}, header
    matchers in C{pkg/router/configutility.go};
  - what the matched rule does: C{chooseHost} in C{pkg/proxy/downstream.go}
    looks at C{direct_response} first, then at C{redirect}, then at C{route}.

Regular expressions are RE2, the syntax that MOSN takes as well.  It searches in
time linear in the length of the text, whatever the pattern, so that neither a
careless pattern nor a hostile path can hang the process.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TIMEOUT",
    "ClusterRoute",
    "DirectResponse",
    "Redirect",
    "RequestFacts",
    "RouteResult",
    "Router",
    "normalize_path",
    "split_host",
]

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

import re2

from reverseproxy.errors import ConfigError, Problem

if TYPE_CHECKING:
    from reverseproxy.config.models import (
        DirectResponseConfig,
        HeaderMatcherConfig,
        RedirectConfig,
        RouteActionConfig,
        RouterConfig,
        RouterRuleConfig,
        VirtualHostConfig,
    )

#: Seconds that a request may take when its route says nothing or 0
#: (C{GlobalTimeout} in MOSN's C{pkg/types/route.go}).
DEFAULT_TIMEOUT = 60.0


@dataclass(slots=True)
class RequestFacts:
    """
    What a router may look at.

    Text that came as bytes is decoded as UTF-8 with C{surrogateescape}.

    @ivar method: the request method as sent.
    @ivar path: the path without the query, in the form of L{normalize_path};
        rules that look at the path never match an empty one.
    @ivar query: what follows the C{?}, without it; empty for none.
    @ivar host: the Host header or C{:authority}, port included, as sent.
    @ivar headers: looks a header up by its lower-case name; L{None} when the
        request has no such header.  Called only when a rule asks for one.
    @ivar scheme: C{"http"} or C{"https"}: how the request reached us.
    """

    method: str
    path: str
    query: str
    host: str
    headers: Callable[[str], str | None]
    scheme: str = "http"


@dataclass(frozen=True, slots=True)
class ClusterRoute:
    """
    Send the request to a cluster.

    @ivar cluster_name: the cluster.
    @ivar timeout: seconds for the whole exchange; 0.0 for no limit.
    @ivar virtual_host: the name of the virtual host that matched, for logs.
    """

    cluster_name: str
    timeout: float = DEFAULT_TIMEOUT
    virtual_host: str = ""


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """
    Answer at once.

    @ivar status: the HTTP status.
    @ivar body: the response body; may be empty.
    """

    status: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Redirect:
    """
    Answer at once that the client should go elsewhere.

    @ivar status: 301, 302, 303, 307 or 308.
    @ivar location: the absolute URL for the Location header; printable ASCII.
    """

    status: int
    location: str


RouteResult = ClusterRoute | DirectResponse | Redirect

_Matcher = Callable[[RequestFacts], RouteResult | None]
_Action = Callable[[RequestFacts], RouteResult]
_Test = Callable[[RequestFacts], bool]
_HeaderTest = Callable[[str], bool]

# What a rule gives that matches but leads nowhere: the search ends there.
_DEAD_END = DirectResponse(404)

_SCHEME = re.compile(r"[a-z][a-z0-9.+-]*")
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
_SURROGATE = re.compile("[\ud800-\udfff]")

# What stays as it is in the parts of a Location: net/url's choice for the path
# (its String() is what MOSN sends), RFC 3986 for the host, and anything
# printable in the query, which is not ours to rewrite.
_PATH_SAFE = "$&+,/:;=@"
_HOST_SAFE = "!$&'()*+,;=:[]"
_QUERY_SAFE = "".join(chr(code) for code in range(0x21, 0x7F))


def normalize_path(target: str) -> str:
    """
    Bring the path of a request target into the form that rules are compared with.

    As MOSN's HTTP parser does (the C{Path()} of C{valyala/fasthttp}'s C{URI}):
    percent-escapes are decoded, runs of slashes become one, and C{.} and C{..}
    segments are resolved, never above the root.  So a rule for C{/admin} can't
    be dodged with C{/x/../admin} or C{/%61dmin}.  A result that is not UTF-8
    carries the odd bytes as surrogate escapes.  C{*} (of C{OPTIONS *}) and the
    empty string stay as they are.

    @param target: the path, without query and fragment, as the client sent it.
    @return: the path to put into L{RequestFacts.path}.
    """
    if "%" in target:
        raw = target.encode("utf-8", "surrogateescape")
        target = unquote_to_bytes(raw).decode("utf-8", "surrogateescape")
    elif "//" not in target and "/." not in target and target[:1] == "/":
        return target
    if not target or target == "*":
        return target
    kept: list[str] = []
    segments = target.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment and segment != ".":
            kept.append(segment)
    if kept and segments[-1] in ("", ".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def split_host(text: str) -> tuple[str, str] | None:
    """
    Split C{host:port} as MOSN does for domains and Host headers.

    That is Go's C{net.SplitHostPort}, except that a missing port is fine.

    @return: host and port; the port is empty if there is none; an IPv6 address
        loses its brackets only when a port follows.  L{None} if the text is no
        such pair, such as a bare IPv6 address.
    """
    head, colon, port = text.rpartition(":")
    if not colon:
        return text, ""
    if text[0] != "[":
        return None if ":" in head or "[" in text or "]" in text else (head, port)
    end = text.find("]")
    if end < 0:
        return None
    rest = text[end + 1 :]
    if rest[:1] != ":":
        return text, ""
    host = text[1:end]
    if rest != ":" + port or "[" in text[1:] or "]" in rest:
        return None
    return host, port


class Router:
    """
    The routing table of one C{router_config_name}.

    @ivar name: the C{router_config_name}.
    @ivar warnings: parts of the configuration that have no effect; the caller
        logs them.
    """

    def __init__(self, config: RouterConfig, file: str = "", where: str = "") -> None:
        """
        Build the table.

        @param config: the validated configuration.
        @param file: its file, for error messages.
        @param where: the place of C{config} in the file, for error messages.
        @raise ConfigError: for everything that MOSN refuses as well: domains
            that are empty, occur twice or have an asterisk inside, a path regex
            that does not compile, a redirect with an impossible scheme or
            status.
        """
        compiler = _Compiler(file, where)
        self.name = config.router_config_name
        self._match = compiler.table(config.virtual_hosts)
        if compiler.errors:
            raise ConfigError(*compiler.errors)
        self.warnings: tuple[Problem, ...] = tuple(compiler.warnings)

    def match(self, facts: RequestFacts) -> RouteResult | None:
        """
        Find what to do with a request.

        @return: L{None} if no rule matches, or the one that does names no
            cluster: answer 404.
        """
        return self._match(facts)


class _Compiler:
    """
    Turns configuration into functions and collects what is wrong with it.
    """

    def __init__(self, file: str, where: str) -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._file = file
        self._where = where

    def _problem(self, path: str, message: str) -> Problem:
        """Make a problem at a place below the router."""
        return Problem(self._file, ".".join(part for part in (self._where, path) if part), message)

    # Virtual hosts

    def table(self, hosts: Sequence[VirtualHostConfig]) -> _Matcher:
        """The whole table as one function."""
        if not hosts:
            self.warnings.append(self._problem("virtual_hosts", "there is none, so nothing will match"))
        exact: dict[tuple[str, str], _Matcher] = {}
        # port -> suffix -> rules
        wildcard: dict[str, dict[str, _Matcher]] = {}
        default: _Matcher | None = None
        for i, host in enumerate(hosts):
            path = f"virtual_hosts[{i}]"
            rules = self._virtual_host(host, path)
            if not host.domains:
                self.warnings.append(self._problem(f"{path}.domains", "is empty, so it will never match"))
            for j, domain in enumerate(host.domains):
                place = f"{path}.domains[{j}]"
                split = split_host(domain.lower())
                if split is None or not domain:
                    self.errors.append(
                        self._problem(place, f"{domain!r} is not a host name, optionally with a port")
                    )
                    continue
                name, port = split
                if name == "*" and port in ("", "*"):
                    if default is not None:
                        self.errors.append(self._problem(place, "there is a default domain already"))
                    default = rules
                elif "*" not in name:
                    if (name, port) in exact:
                        self.errors.append(self._problem(place, f"{domain!r} occurs twice"))
                    exact[name, port] = rules
                elif name[0] == "*":
                    suffixes = wildcard.setdefault(port, {})
                    if name[1:] in suffixes:
                        self.errors.append(self._problem(place, f"{domain!r} occurs twice"))
                    suffixes[name[1:]] = rules
                else:
                    self.errors.append(
                        self._problem(place, f"in {domain!r}, '*' may only be the first character")
                    )
        if not exact and not wildcard:
            return default or _nothing
        return _by_host(exact, wildcard, default or _nothing)

    def _virtual_host(self, host: VirtualHostConfig, path: str) -> _Matcher:
        """The rules of one virtual host as one function."""
        rules = [
            rule
            for i, config in enumerate(host.routers)
            if (rule := self._rule(config, host.name, f"{path}.routers[{i}]")) is not None
        ]
        return _first_of(rules)

    # Rules

    def _rule(
        self, config: RouterRuleConfig, virtual_host: str, path: str
    ) -> tuple[_Test, RouteResult | _Action] | None:
        """A rule as its test and its outcome; L{None} if it can never match."""
        outcome = self._outcome(config, virtual_host, path)
        match = config.match
        place = f"{path}.match"
        test: _Test
        if match.prefix:
            test = _prefix_test(match.prefix)
        elif match.path:
            test = _path_test(match.path)
        elif match.regex:
            try:
                search = _compile(match.regex)
            except re2.error as error:
                self.errors.append(
                    self._problem(f"{place}.regex", f"{match.regex!r} is not RE2: {_reason(error)}")
                )
                return None
            test = _regex_test(search)
        elif match.variables or match.dsl_expressions:
            # Falling through to a header rule would make it match everything.
            kind = "variables" if match.variables else "dsl_expressions"
            self.warnings.append(
                self._problem(f"{place}.{kind}", "is not supported, so this rule will never match")
            )
            return None
        else:
            return self._rpc_test(match.headers, place), outcome
        method: str | None = None
        headers: list[tuple[str, _HeaderTest]] = []
        for i, header in enumerate(match.headers):
            if header.name == "method":
                method = header.value
            else:
                headers += self._header_test(header, f"{place}.headers[{i}]")
        return _with_headers(test, method, headers), outcome

    def _rpc_test(self, matchers: Sequence[HeaderMatcherConfig], place: str) -> _Test:
        """The test of a rule that looks at headers alone."""
        if len(matchers) == 1 and matchers[0].name == "service" and matchers[0].value:
            # The compatible fast match: the only pattern it knows is ".*",
            # whatever the regex flag says.
            return _service_test(matchers[0].value)
        headers: list[tuple[str, _HeaderTest]] = []
        for i, header in enumerate(matchers):
            headers += self._header_test(header, f"{place}.headers[{i}]")
        return _with_headers(None, None, headers)

    def _header_test(self, config: HeaderMatcherConfig, path: str) -> Iterator[tuple[str, _HeaderTest]]:
        """Name and value test of one matcher; none if it is to be ignored."""
        name = config.name.lower()
        if not config.regex:
            yield name, config.value.__eq__
            return
        try:
            yield name, _compile(config.value)
        except re2.error as error:
            # MOSN drops it too, which makes the rule match more than was meant.
            self.warnings.append(
                self._problem(
                    f"{path}.value",
                    f"{config.value!r} is not RE2 ({_reason(error)}), so this condition is ignored",
                )
            )

    # Outcomes

    def _outcome(self, config: RouterRuleConfig, virtual_host: str, path: str) -> RouteResult | _Action:
        """What a matched rule does: a result, or a function that makes one."""
        if config.direct_response is not None:
            return self._direct(config.direct_response, f"{path}.direct_response")
        if config.redirect is not None:
            return self._redirect(config.redirect, f"{path}.redirect")
        if config.route is None or not config.route.cluster_name:
            self.warnings.append(
                self._problem(f"{path}.route", "names no cluster, so requests that match get status 404")
            )
            return _DEAD_END
        return ClusterRoute(config.route.cluster_name, _timeout(config.route), virtual_host)

    def _direct(self, config: DirectResponseConfig, path: str) -> DirectResponse:
        """The result for C{direct_response}; status 0 means 200, as in MOSN's HTTP/1."""
        status = config.status or 200
        if not 200 <= status <= 599:
            self.errors.append(self._problem(f"{path}.status", f"{status} is not a final HTTP status"))
        return DirectResponse(status, (config.body or "").encode("utf-8", "replace"))

    def _redirect(self, config: RedirectConfig, path: str) -> _Action:
        """The function for C{redirect}."""
        status = config.response_code or 301
        if status not in _REDIRECT_STATUSES:
            allowed = ", ".join(str(code) for code in sorted(_REDIRECT_STATUSES))
            self.errors.append(
                self._problem(f"{path}.response_code", f"{status} is none of {allowed} or 0 for 301")
            )
        scheme = config.scheme_redirect.lower()
        if scheme and not _SCHEME.fullmatch(scheme):
            self.errors.append(self._problem(f"{path}.scheme_redirect", f"{scheme!r} is not a URL scheme"))
        return _redirection(status, scheme, config.host_redirect, config.path_redirect)


def _timeout(route: RouteActionConfig) -> float:
    """A route's timeout as results have it: 0.0 for none."""
    return max(route.timeout or DEFAULT_TIMEOUT, 0.0)


def _reason(error: Exception) -> str:
    """Why RE2 refused a pattern; it gives its reasons as bytes."""
    reason = error.args[0] if error.args else error
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _compile(pattern: str) -> _HeaderTest:
    """
    Compile a pattern into a search that tells only whether it is found.

    @raise re2.error: if it is not valid.
    """
    options = re2.Options()
    options.log_errors = False
    options.never_capture = True
    search = re2.compile(_encode(pattern), options).search

    def found(text: str) -> bool:
        return search(_encode(text)) is not None

    return found


def _encode(text: str) -> bytes:
    """
    Encode for RE2, which can't take what is not UTF-8.

    A byte that is not UTF-8 becomes U+FFFD, which is what Go's regexp takes it
    for.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode("utf-8")


def _fold(text: str) -> str:
    """Fold case one character at a time, as Go's C{strings.EqualFold} does."""
    if text.isascii():
        return text.lower()
    folded = []
    for character in text:
        candidates = (character.casefold(), character.lower(), character)
        folded.append(next(candidate for candidate in candidates if len(candidate) == 1))
    return "".join(folded)


# Tests: each is True for a request that its rule matches.


def _prefix_test(prefix: str) -> _Test:
    def test(facts: RequestFacts) -> bool:
        return facts.path.startswith(prefix)

    return test


def _path_test(path: str) -> _Test:
    folded = _fold(path)

    def test(facts: RequestFacts) -> bool:
        return facts.path == path or _fold(facts.path) == folded

    return test


def _regex_test(search: _HeaderTest) -> _Test:
    def test(facts: RequestFacts) -> bool:
        return facts.path != "" and search(facts.path)

    return test


def _service_test(value: str) -> _Test:
    def test(facts: RequestFacts) -> bool:
        service = facts.headers("service")
        return bool(service) and (value == ".*" or service == value)

    return test


def _always(facts: RequestFacts) -> bool:
    return True


def _with_headers(test: _Test | None, method: str | None, headers: list[tuple[str, _HeaderTest]]) -> _Test:
    """Add the conditions on method and headers; all must hold."""
    if method is None and not headers:
        return test or _always

    def every(facts: RequestFacts) -> bool:
        if method is not None and facts.method != method:
            return False
        if test is not None and not test(facts):
            return False
        for name, matches in headers:
            value = facts.headers(name)
            if value is None or not matches(value):
                return False
        return True

    return every


# Matchers: each gives the result for a request, or None.


def _nothing(facts: RequestFacts) -> RouteResult | None:
    return None


def _first_of(rules: Sequence[tuple[_Test, RouteResult | _Action]]) -> _Matcher:
    """The first rule that matches decides."""
    if not rules:
        return _nothing
    if len(rules) == 1:
        return _only(*rules[0])

    def first(facts: RequestFacts) -> RouteResult | None:
        for test, outcome in rules:
            if test(facts):
                if callable(outcome):
                    return outcome(facts)
                return None if outcome is _DEAD_END else outcome
        return None

    return first


def _only(test: _Test, outcome: RouteResult | _Action) -> _Matcher:
    """The common case of one rule."""
    if outcome is _DEAD_END:
        return _nothing
    if callable(outcome):
        action = outcome
        return lambda facts: action(facts) if test(facts) else None
    result = outcome
    return lambda facts: result if test(facts) else None


def _by_host(
    exact: dict[tuple[str, str], _Matcher],
    wildcard: dict[str, dict[str, _Matcher]],
    default: _Matcher,
) -> _Matcher:
    """
    Choose the virtual host, most specific first, then its rule.

    One dictionary look-up for every different length of suffix, so that the
    number of domains does not matter.
    """
    # port -> (length, suffix -> rules), the longest first
    suffixes: dict[str, list[tuple[int, dict[str, _Matcher]]]] = {}
    for port, entries in wildcard.items():
        lengths = sorted({len(suffix) for suffix in entries}, reverse=True)
        suffixes[port] = [
            (length, {suffix: entry for suffix, entry in entries.items() if len(suffix) == length})
            for length in lengths
        ]

    def choose(host: str, port: str) -> _Matcher:
        rules = exact.get((host, port)) or exact.get((host, "*"))
        if rules is not None:
            return rules
        for key in (port, "*"):
            for length, entries in suffixes.get(key, ()):
                # The asterisk stands for one character at least.
                if length < len(host):
                    rules = entries.get(host[len(host) - length :])
                    if rules is not None:
                        return rules
        return default

    def match(facts: RequestFacts) -> RouteResult | None:
        split = split_host(facts.host.lower())
        if split is None or not facts.host:
            return None
        return choose(*split)(facts)

    return match


def _redirection(status: int, scheme: str, host: str, path: str) -> _Action:
    """
    Make the function that builds a redirect.

    What is empty is taken from the request; the query always is.
    """

    def redirect(facts: RequestFacts) -> RouteResult:
        new_scheme = scheme or facts.scheme
        new_host = host or facts.host
        new_path = path or facts.path
        if new_scheme != facts.scheme:
            # The old scheme's default port would be wrong for the new one.
            name, _, port = new_host.rpartition(":")
            if name and (new_scheme, port) in (("http", "443"), ("https", "80")):
                new_host = name
        if new_path[:1] != "/":
            new_path = "/" + new_path
        location = f"{new_scheme}://{_quote(new_host, _HOST_SAFE)}{_quote(new_path, _PATH_SAFE)}"
        if facts.query:
            location += "?" + _quote(facts.query, _QUERY_SAFE)
        return Redirect(status, location)

    return redirect


def _quote(text: str, safe: str) -> str:
    """Percent-encode; bytes that are not UTF-8 keep their value."""
    try:
        return quote(text, safe=safe, errors="surrogateescape")
    except UnicodeEncodeError:
        return quote(text, safe=safe, errors="replace")
