"""``tritonpipe watch``: serve what the aliases wish, for ever."""

from __future__ import annotations

import atexit
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.errors import PROBLEMS_REMAIN
from pipeline.cli.output import emit, json_option, say, table
from pipeline.cli.secret_file import shared_secret
from pipeline.serialization import to_json

if TYPE_CHECKING:
    from pipeline.watch.bell import Bell
    from pipeline.watch.difference import Difference, Standing
    from pipeline.watch.events import Event
    from pipeline.watch.pulse import Pulse
    from pipeline.watch.rounds import Plan


@click.command()
@click.option("--once", is_flag=True, help="Do what can be done now, and end: for cron and CI.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    help="Seconds between two looks at the registry while nothing happens.",
)
@click.option(
    "--model", "names", multiple=True, help="Registered models, as in a shell: 'fraud-*'."
)
@click.option("--tag", "tags", multiple=True, help="Only models with this tag, as KEY=VALUE.")
@click.option("--alias", help="The alias that is the wish; default: TRITONPIPE_ALIAS, champion.")
@click.option(
    "--unload",
    is_flag=True,
    help="Take a model away when its alias is removed, instead of serving it on.",
)
@click.option(
    "--unload-after",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="Seconds without the alias before that.",
)
@click.option(
    "--exports",
    type=click.IntRange(1),
    help="Models exported at once; default: half the processors.",
)
@click.option(
    "--stop-seconds",
    type=click.FloatRange(0),
    default=20.0,
    show_default=True,
    help="How long a commit under way may take to be proven after SIGTERM.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Which models and how; default: TRITONPIPE_CONFIG, or tritonpipe.toml if it is there.",
)
@click.option("--listen", help="HOST:PORT for health, metrics and webhooks.")
@click.option(
    "--webhook-secret-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Holds the secret shared with MLflow, whose notifications then wake the loop; it is made "
    "if it is not there. Needs --listen.",
)
@json_option
def watch(
    once: bool,  # noqa: FBT001
    interval: float,
    names: tuple[str, ...],
    tags: tuple[str, ...],
    alias: str | None,
    unload: bool,  # noqa: FBT001
    unload_after: float,
    exports: int | None,
    stop_seconds: float,
    config: Path | None,
    listen: str | None,
    webhook_secret_file: Path | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Serve what the aliases in MLflow wish, from now on.

    Looks at the registry again and again. A version that an alias points at is promoted; when the
    alias moves back, the release from before is served again at once. What fails is told, recorded
    on the model version, and tried again if it can heal; a version that was refused is not, until
    its tags, the settings or the tools change. Of several watchers one acts.

    Ctrl-C or SIGTERM stops it; what was not about to be served is left undone.

    \b
    Examples:
      tritonpipe watch
      tritonpipe watch --model 'fraud-*' --tag team=payments --interval 5
      tritonpipe watch --once --json
      tritonpipe watch --listen 127.0.0.1:8090 --webhook-secret-file webhook.secret
    """
    from pipeline.configuration import file_of, load_configuration
    from pipeline.settings import load_settings
    from pipeline.watch.bell import Bell
    from pipeline.watch.difference import Policy
    from pipeline.watch.loop import watch as run_watch
    from pipeline.watch.loop import watch_once
    from pipeline.watch.planning import planned
    from pipeline.watch.plans import Plans
    from pipeline.watch.pulse import Pulse

    if webhook_secret_file and not listen:
        raise click.UsageError("--webhook-secret-file needs --listen, where MLflow can reach it")

    environment = load_settings()

    def plan() -> Plan:
        return planned(
            load_configuration(environment, config),
            alias=alias or "",
            names=names,
            tags=dict(_tag(text) for text in tags),
            policy=Policy(unload=unload, unload_after_seconds=unload_after),
            exports=exports,
        )

    bell = Bell()
    _stop_on_signals(bell)
    pulse = Pulse(interval=interval)
    listeners = [pulse.take, _tell_json if as_json and not once else _tell, *_traces()]

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    plans = Plans(plan, file_of(config), tell)
    settings = plans().base
    if once:
        found = watch_once(settings, plans(), bell=bell, tell=tell)
        emit(found.standings, as_json=as_json, human=lambda: _print(found))
        if any(s.state in _PROBLEMS for s in found.standings):
            raise click.exceptions.Exit(PROBLEMS_REMAIN)
        return
    if listen:
        _listen(listen, webhook_secret_file, pulse, bell)
    run_watch(settings, plans, stop_seconds=stop_seconds, bell=bell, pulse=pulse, tell=tell)
    say("stopped; what is served is served")


_PROBLEMS = frozenset({"refused", "retrying", "impossible"})


def _traces() -> list[Callable[[Event], None]]:
    """What sends traces, if the environment wants them."""
    from pipeline.watch import traces

    if not traces.is_wanted():
        return []
    trace, flush = traces.open_traces()
    atexit.register(flush)
    return [trace]


def _listen(address: str, secret_file: Path | None, pulse: Pulse, bell: Bell) -> None:
    from pipeline.watch.endpoint import WEBHOOK_PATH, application, serve_endpoint
    from pipeline.watch.notifications import Notifications

    notifications = None
    if secret_file is not None:
        notifications = Notifications(shared_secret(secret_file))
    bound = serve_endpoint(address, application(pulse, bell, notifications))
    webhook = f", {WEBHOOK_PATH}" if notifications else ""
    say(f"listening on http://{bound}: /healthz, /readyz, /metrics, /status{webhook}")


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise click.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--tag")
    return key, value


def _stop_on_signals(bell: Bell) -> None:
    """The first signal stops in good order; the second one does not wait for it."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in numbers:
            signal.signal(number, before[number])
        bell.stop()

    for number in numbers:
        signal.signal(number, stop)


def _tell(event: Event) -> None:
    line = _line(event)
    if line:
        say(f"{time.strftime('%H:%M:%S', time.localtime(event.at))}  {line}")


def _line(event: Event) -> str:
    name = click.style(event.model, bold=True)
    done = event.outcome in {"promoted", "unchanged", "retired"}
    hint = f"\n          hint: {event.hint}" if event.hint else ""
    match event.kind:
        case "started":
            return f"{name}  {event.wish or 'the alias is gone'}: begun"
        case "ended" if done:
            return f"{name}  {event.wish or 'no longer served'}: {_success(event)}"
        case "ended" if event.outcome == "Interrupted":
            return f"{name}  {event.wish}: undone"
        case "ended":
            return f"{name}  {event.wish}: {click.style('failed', fg='red')}: {event.message}{hint}"
        case "cancelled":
            return f"{name}  {event.wish}: given up after {event.seconds:.1f} s: {event.message}"
        case "standing":
            reason = event.message.partition("\n")[0]  # the whole of it was told when work ended
            told = f"{event.outcome}: {reason}" if reason else event.outcome
            return f"{name}  {event.wish}: {told}" if event.wish else f"{name}  {told}"
        case "leading":
            return "watching"
        case "configured":
            return event.message
        case "stage":
            return ""  # they are told together, at the end
        case "warning":
            return f"{name}  {event.wish}: {click.style('warning', fg='yellow')}: {event.message}"
        case "waiting":
            return f"another watcher is at work: {event.message}"
    return f"{click.style('warning', fg='yellow')}: {event.message}; trying again{hint}"


def _success(event: Event) -> str:
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in event.stages.items())
    shown = f" ({stages})" if stages else ""
    words = {"promoted": "served", "unchanged": "served already, proven again"}
    return f"{words.get(event.outcome, event.outcome)} after {event.seconds:.1f} s{shown}"


def _tell_json(event: Event) -> None:
    document: dict[str, Any] = {k: v for k, v in to_json(event).items() if v not in ("", {}, 0.0)}
    click.echo(json.dumps(document))


def _print(found: Difference) -> None:
    def row(standing: Standing) -> list[object]:
        wished = standing.wish.version if standing.wish else "-"
        published = "-" if standing.published is None else standing.published
        return [standing.model, wished, published, standing.state, standing.reason]

    table(["model", "wished", "published", "state", "why"], [row(s) for s in found.standings])
