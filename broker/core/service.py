"""The service: a batch of requests and the time in, replies and slow work out. No I/O of its own.

One call of `Service.turn` is one batch of the store, hence one commit. Replies are made
only after it, from receipts, so a commit that failed turns the whole batch into errors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from broker.core.accounts import Accounts
from broker.core.blocks import Blocks
from broker.core.dispatcher import ENDS_BATCH, Dispatcher, Job
from broker.core.expiry import Expiry
from broker.core.handlers import (
    Context,
    Policy,
)
from broker.core.model import Route
from broker.core.news import Newsreader
from broker.core.origins import Origins
from broker.core.outage import Outage
from broker.core.ports import (
    Audit,
    Hasher,
    Operations,
    Store,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from broker.core.push import Push
from broker.core.refusals import closed, fault, storage_full, too_many_frames, unavailable
from broker.core.replies import Answered, Answers, Frames, Outcome, Replies, answers_to_all
from broker.core.rooms import Rooms
from broker.core.sessions import Sessions
from broker.core.shared_rates import rates_of
from broker.core.slow import SlowRequests
from broker.core.subscriptions import Subscriptions
from broker.core.trail import Trail
from broker.wire.envelope import OK
from broker.wire.errors import WireError

log = logging.getLogger("kotak.service")

#: Slow requests waiting or running: about two seconds of password hashing on two cores.
SLOW_REQUESTS_MAX: Final = 64
#: Milliseconds that an idle broker waits before it takes a turn all the same.
IDLE_MS: Final = 1_000
#: ... and while the store cannot be reached: so soon it is noticed that it is back.
OUTAGE_MS: Final = 250
#: Between steps of tidying the store while there is something to do, and when there is not.
TIDY_STEP_MS: Final = 20
TIDY_PAUSE_MS: Final = 60_000

_DISK_FAILED: Final = "the broker's disk failed: try again with the same id"
_UNREACHABLE: Final = "the broker cannot reach its store: try again with the same id"

#: One message: its route and its frames; None in their place says that there were too many.
Arrival = tuple[Route, list[bytes] | None]


class Finished(NamedTuple):
    """A job that was run, with what its work returned, or the exception that ended it."""

    job: Job
    outcome: Any


class Turn(NamedTuple):
    """What a batch led to. ``failed`` says that the store can no longer be trusted."""

    replies: Frames
    jobs: list[Job]
    failed: bool


class Service:
    """All commands over one store. One caller at a time."""

    def __init__(
        self,
        store: Store,
        *,
        hasher: Hasher,
        make_token: Callable[[], str],
        policy: Policy,
        server: str,
        key_of: Callable[[Route], str | None] = lambda _: None,
        address_of: Callable[[Route], str | None] = lambda _: None,
        operations: Operations | None = None,
        audit: Audit | None = None,
    ) -> None:
        self._store = store
        self._trail = Trail(audit)
        self._accounts = Accounts(store, hasher)
        self._sessions = Sessions(
            store, make_token=make_token, limits=policy.sessions, lease_ms=policy.presence_ms // 3
        )
        self._rooms = Rooms(store)
        self._blocks = Blocks(store)
        self._subscriptions = Subscriptions()
        self._news = Newsreader(
            store, self._sessions, self._accounts, self._rooms, self._subscriptions
        )
        self._outage = Outage()
        self._expiry = Expiry(store, self._subscriptions, notices=policy.expiry_notices)
        self._origins = Origins(address_of)
        self._slow = SlowRequests(policy.attempts, store, places_max=SLOW_REQUESTS_MAX)
        self._context = Context(
            store,
            hasher,
            self._sessions,
            self._accounts,
            self._rooms,
            self._blocks,
            self._subscriptions,
            policy,
            rates_of(policy.sends, store),
            server,
            key_of,
            self._origins.of,
            operations,
        )
        self._dispatcher = Dispatcher(self._context, self._slow, self._trail)
        self._replies = Replies(
            self._accounts, durability=store.durability, epoch=store.epoch.number
        )
        self._push = Push(store, self._sessions, self._subscriptions, self._replies)
        self._tidying = False
        self._tidy_at_ms = 0
        #: Messages that expired unread, and those of whom no notice could be left.
        self.expired = 0
        self.unnoticed = 0
        #: Requests by command and refusals by code, for the metrics page.
        self.requests = self._dispatcher.requests
        self.errors = self._replies.errors

    @property
    def busy(self) -> bool:
        """Tell whether slow requests are still unanswered."""
        return len(self._slow) > 0

    @property
    def draining(self) -> bool:
        """While True only what leaves less to be delivered again is served."""
        return self._dispatcher.draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._dispatcher.draining = draining

    @property
    def closed(self) -> bool:
        """Tell whether nothing new is taken; what waits is read and acknowledged all the same."""
        return bool(self._context.closed)

    @property
    def degraded(self) -> bool:
        """Tell whether the store could not be reached of late."""
        return self._outage.active

    def close_to_new(self, reason: str) -> None:
        """Take nothing new, until `open_to_new` has been called for each reason. From any thread.

        ``reason`` is a word of the caller's, told to nobody.
        """
        self._context.closed.add(reason)

    def open_to_new(self, reason: str) -> None:
        """Take back what `close_to_new` said. From any thread."""
        self._context.closed.discard(reason)

    @property
    def subscriptions(self) -> int:
        """Count the receivers."""
        return len(self._subscriptions)

    def lost(self, routes: Mapping[Route, bool]) -> None:
        """Hear of connections that are gone (True) or had no room for their frames (False)."""
        self._subscriptions.lost(routes)

    def grant_admin(self, token: str) -> None:
        """Accept one token as the administrator's."""
        self._sessions.grant_admin(token)

    def trust_door(self, token: str) -> None:
        """Believe a door that has this token where its logins come from (`origins.handed_on`)."""
        self._origins.trust(token)

    def turn(self, arrivals: Sequence[Arrival], finished: Sequence[Finished], now_ms: int) -> Turn:
        """Handle a batch: all of it commits, or all of it is answered with an error."""
        self._dispatcher.together.clear()
        if self._store.shared:
            self._news.take_in()
            self._slow.hear(now_ms)
        if self._outage.active:
            self._outage.pass_by(now_ms)
        jobs: list[Job] = []
        try:
            try:
                answers, jobs = self._batch(arrivals, finished, now_ms)
            except StoreFullError:
                answers, jobs = self._batch_when_full(arrivals, finished, now_ms)
            self._trail.write()
            frames = self._replies.encode(answers, self._dispatcher.together)
            self._add_events(frames, now_ms)
            return Turn(frames, jobs, failed=False)
        except StoreUnavailableError as error:
            self._outage.refuse(error, now_ms)
            for job in jobs:  # of requests that are refused after all
                self._slow.leave(job.ticket, now_ms)
            return Turn(self._refuse_all(arrivals, finished, _UNREACHABLE), [], failed=False)
        except StoreFailedError:  # also in the second attempt, or while names are looked up
            log.critical("the store failed; the batch was refused", exc_info=True)
            return Turn(self._refuse_all(arrivals, finished, _DISK_FAILED), [], failed=True)
        finally:
            for job, _ in finished:
                self._slow.leave(job.ticket, now_ms)

    def _add_events(self, frames: Frames, now_ms: int) -> None:
        """Push what is due. Where the store cannot be reached, it stays so: the replies stand."""
        try:
            self._push.add_events(frames, now_ms)
        except StoreUnavailableError as error:
            self._outage.note(error, now_ms)
        if self._store.shared:
            self._news.tell_names()

    @property
    def patience_ms(self) -> int:
        """How long the next turn may wait for something to arrive."""
        if self._outage.active:
            return OUTAGE_MS
        if self._subscriptions.due or self._news.behind:
            return 0  # more to push than the last turn had time for
        return TIDY_STEP_MS if self._tidying else IDLE_MS

    def tidy(self, now_ms: int) -> bool:
        """Let the store delete a little, now and then; False when it failed for good.

        For after a turn's replies were sent, so that they do not wait for it.
        """
        if now_ms < self._tidy_at_ms:
            return True
        try:
            with self._store.batch():
                self._tidying = self._store.tidy(now_ms)
        except StoreFullError:
            self._tidying = False  # deleting takes room too: later
        except StoreUnavailableError as error:
            self._outage.note(error, now_ms)
            self._tidying = False
        except StoreFailedError:
            log.critical("the store failed while it was tidied", exc_info=True)
            return False
        self._tidy_at_ms = now_ms + (TIDY_STEP_MS if self._tidying else TIDY_PAUSE_MS)
        return True

    # --- one batch ---------------------------------------------------------------------------

    def _refusal(self, now_ms: int) -> WireError | None:
        """Return what anything new is refused with for now."""
        if self._dispatcher.full:
            return storage_full()
        if self._context.closed:
            return closed()
        return unavailable(_UNREACHABLE) if self._outage.holds(now_ms) else None

    def _batch(
        self, arrivals: Sequence[Arrival], finished: Sequence[Finished], now_ms: int
    ) -> tuple[Answers, list[Job]]:
        """Run handlers inside one batch of the store and collect what they return, by route."""
        ctx, dispatch = self._context, self._dispatcher.dispatch
        ctx.now_ms = now_ms
        ctx.paged.clear()
        ctx.refusal = self._refusal(now_ms)
        answers: Answers = {}
        jobs: list[Job] = []
        heard = self._subscriptions.heard
        expired = unnoticed = 0
        try:
            with self._store.batch():
                if not self._dispatcher.full:  # what is late stays so: writing that down takes room
                    expired, unnoticed = self._expiry.take_out(now_ms)
                for job, outcome in finished:
                    result = self._finish(ctx, job, outcome)
                    answers.setdefault(job.route, Answered()).add(job.request_id, result)
                for route, frames in arrivals:
                    heard(route, now_ms)
                    replies = answers.get(route)
                    if replies is None:
                        replies = answers[route] = Answered()
                    if frames is None:
                        replies.add(None, too_many_frames())
                    else:
                        dispatch(route, frames, replies, jobs)
                if ctx.rates is not None:
                    ctx.rates.settle(now_ms)
        except BaseException as error:
            self._roll_back(jobs, error, now_ms)
            raise
        self._subscriptions.keep()
        self.expired += expired
        self.unnoticed += unnoticed
        if jobs:
            jobs = [job for job in jobs if not self._refused_elsewhere(job, answers, now_ms)]
        return answers, jobs

    def _roll_back(self, jobs: Sequence[Job], error: BaseException, now_ms: int) -> None:
        """See to it that what was rolled back does not live on in a cache or a count."""
        self._sessions.forget()
        self._accounts.forget()
        self._trail.forget()
        for job in jobs:
            self._slow.leave(job.ticket, now_ms)
        if self._store.shared:  # which need not answer now
            self._news.doubt(self._subscriptions.take_back(lambda _: ()))
        elif not isinstance(error, StoreFailedError):
            self._blocks.reload()
            self._subscriptions.take_back(self._rooms.joined)

    def _refused_elsewhere(self, job: Job, answers: Answers, now_ms: int) -> bool:
        """Answer a slow request that all brokers together have no room for, and say so."""
        refusal = self._slow.refused(job.ticket, now_ms)
        if refusal is not None:
            answers[job.route].add(job.request_id, refusal)
        return refusal is not None

    def _finish(self, ctx: Context, job: Job, outcome: Any) -> Outcome:
        """Complete a slow request; the outcome of a later step of it is never slow again."""
        result = self._finished(ctx, job, outcome)
        self._slow.settle(job.ticket, result, ctx.now_ms)
        if job.deferred.entry is not None:
            told = result.code.value if isinstance(result, WireError) else OK
            self._trail.add(job.deferred.entry, ctx.now_ms, told)
        return result

    def _finished(self, ctx: Context, job: Job, outcome: Any) -> Outcome:
        if isinstance(outcome, WireError):
            return outcome.bare()
        if isinstance(outcome, Exception):
            return fault(outcome)
        if self._dispatcher.full and job.deferred.stores:
            return storage_full()
        try:
            return job.deferred.finish(ctx, outcome)
        except WireError as error:
            return error.bare()
        except ENDS_BATCH:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            return fault(error)

    # --- when the store refuses ----------------------------------------------------------------

    def _batch_when_full(
        self, arrivals: Sequence[Arrival], finished: Sequence[Finished], now_ms: int
    ) -> tuple[Answers, list[Job]]:
        """Run a batch again without what takes room: reading and acknowledging go on.

        The store says so in the log, once for as long as it lasts.
        """
        self._dispatcher.full = self._sessions.sparing = True
        try:
            return self._batch(arrivals, finished, now_ms)
        except StoreFullError:
            return answers_to_all(arrivals, _asked(finished), storage_full()), []
        finally:
            self._dispatcher.full = self._sessions.sparing = False

    def _refuse_all(
        self, arrivals: Sequence[Arrival], finished: Sequence[Finished], why: str
    ) -> Frames:
        answers = answers_to_all(arrivals, _asked(finished), unavailable(why))
        return self._replies.encode(answers, self._dispatcher.together)


def _asked(finished: Sequence[Finished]) -> list[tuple[Route, int]]:
    return [(job.route, job.request_id) for job, _ in finished]
