"""The dispatcher: a message's frames in, an outcome for each of its requests out, in a batch.

Source: docs/PROTOCOL.md, "Requests and replies".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from broker.core.admission import authorize, check_special
from broker.core.handlers import COMMANDS, CommandSpec, Context, Deferred, Result, handle_chats
from broker.core.model import Route
from broker.core.places import too_busy
from broker.core.ports import StoreFailedError, StoreFullError, StoreUnavailableError
from broker.core.refusals import fault, too_many_frames, unavailable
from broker.core.replies import Answered, Outcome
from broker.core.runs import Run, run_at
from broker.core.slow import SlowRequests, Ticket
from broker.core.trail import Trail, entry_of
from broker.wire.envelope import OK, BadRequest, Request, check_request, decode_requests
from broker.wire.errors import Code, WireError

#: What ends a batch, and not only the request that met it.
ENDS_BATCH: Final = (StoreFullError, StoreFailedError, StoreUnavailableError)


class Job(NamedTuple):
    """Slow work that a request left behind, to be run by whoever does not lead."""

    route: Route
    request_id: int
    deferred: Deferred
    ticket: Ticket


class Dispatcher:
    """Runs the commands of requests; whatever is in them, each gets its answer."""

    def __init__(self, context: Context, slow: SlowRequests, trail: Trail) -> None:
        self._context = context
        self._slow = slow
        self._trail = trail
        #: Connections whose requests of this turn came several to a frame: so may the replies.
        self.together: set[Route] = set()
        #: While True only what leaves less to be delivered again is served.
        self.draining = False
        #: While True nothing is taken that needs room on the disk.
        self.full = False
        #: Requests by command, for the metrics page.
        self.requests: Counter[str] = Counter()

    def dispatch(
        self,
        route: Route,
        frames: list[bytes],
        replies: Answered,
        jobs: list[Job],
    ) -> None:
        """Carry out the requests of one message."""
        self._context.route = route
        for frame in frames:
            try:
                requests, together = decode_requests(frame)
            except BadRequest as error:
                replies.add(None, error.bare())
                continue
            if not together:
                self._handle_one(requests[0], replies, jobs)
            elif len(frames) > 1:
                replies.add(None, too_many_frames())
            else:
                self.together.add(route)
                self._handle_all(requests, replies, jobs)

    def _handle_all(
        self,
        requests: Sequence[Any],
        replies: Answered,
        jobs: list[Job],
    ) -> None:
        at = 0
        while at < len(requests):
            run = run_at(requests, at)
            if run is None:
                self._handle_one(requests[at], replies, jobs)
                at += 1
            else:
                replies.outcomes += self._handle_run(run)
                replies.ids += run.ids
                at += len(run.ids)

    def _handle_run(self, run: Run) -> Sequence[Outcome]:
        """Handle messages of one sender: what is refused to one of them is refused to all."""
        ctx, spec = self._context, COMMANDS["chat"]
        self.requests[run.command] += len(run.ids)
        try:
            self._enter(spec, run.token)
            return handle_chats(ctx, run.letters)
        except WireError as error:
            refusal = error.bare()
        except ENDS_BATCH:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one handler is one bad answer
            refusal = fault(error)
        return [refusal] * len(run.ids)

    def _handle_one(self, request: Any, replies: Answered, jobs: list[Job]) -> None:
        ctx = self._context
        request_id: int | None = None
        result: Outcome
        try:
            checked = check_request(request)
            request_id = checked[0]
            result = self._run(checked)
            if type(result) is Deferred:
                ticket = self._slow.admit(result, ctx.origin_of(ctx.route, checked[2]), ctx.now_ms)
                jobs.append(Job(ctx.route, request_id, result, ticket))
                return
        except BadRequest as error:
            request_id, result = error.request_id, error.bare()
        except WireError as error:
            result = error.bare()
        except ENDS_BATCH:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            result = fault(error)
        replies.add(request_id, result)

    def _run(self, request: Request) -> Result:
        """Run one request, after the checks that its `CommandSpec` carries."""
        _, command, token, args = request
        spec = COMMANDS.get(command)
        if spec is None:
            raise WireError(Code.UNKNOWN_COMMAND, "no such command in version 1 of the protocol")
        self.requests[command] += 1
        if spec.audit is not None:
            return self._run_audited(spec, request)
        self._enter(spec, token)
        return spec.handle(self._context, spec.parse(args))

    def _enter(self, spec: CommandSpec, token: str | None) -> None:
        """Set the session of a request, or refuse it before anybody looks at its arguments."""
        ctx = self._context
        if spec.own and token is not None:  # the hot path
            ctx.session = session = ctx.sessions.resolve(token, ctx.now_ms)
            if not session.plain:
                check_special(ctx, spec, session)
        else:
            authorize(ctx, spec, token)
        if self.draining or ctx.refusal is not None or spec.slow:
            self._admit(spec)

    def _run_audited(self, spec: CommandSpec, request: Request) -> Result:
        """Run a request as `_run` does, and note who asked and what came of it."""
        ctx = self._context
        ctx.session = None  # type: ignore[assignment]  # not that of the request before
        outcome = Code.INTERNAL.value
        try:
            authorize(ctx, spec, request[2])
            self._admit(spec)
            result = spec.handle(ctx, spec.parse(request[3]))
            if type(result) is Deferred:
                outcome = ""  # noted when it is finished
                return result._replace(entry=entry_of(ctx, spec, request))
            outcome = OK
        except WireError as error:
            outcome = error.code.value
            raise
        finally:
            if outcome:
                self._trail.add(entry_of(ctx, spec, request), ctx.now_ms, outcome)
        return result

    def _admit(self, spec: CommandSpec) -> None:
        """Refuse what must wait: the broker stops, the disk is full, or too much is slow."""
        refusal = self._context.refusal
        if self.draining and not spec.while_draining:
            raise unavailable("the broker is stopping: try again with the same id")
        if refusal is not None and (spec.stores if self.full else spec.adds):
            raise refusal
        if spec.slow and self._slow.full:
            raise too_busy()
