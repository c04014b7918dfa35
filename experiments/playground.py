"""The playground: a local page where policies are asked, compared and taught, and an OpenAI-compatible interface.

    rljax playground                              the policy in runs/shop; it is trained first, where there is none
    rljax playground runs/fruit                   the checkpoints of a run
    rljax playground runs/a runs/b                two runs, to be put side by side
    rljax playground FOLDER --config smollm2:level=2      a Hugging Face folder, asked in the task of a config

The page is at http://127.0.0.1:8765/ and only this machine can open it. Clients of OpenAI's protocol use .../v1 as their base URL.
"""

import threading
from pathlib import Path

from rljax.serving import server
from rljax.serving.asking import warm_up
from rljax.serving.default_policy import Training
from rljax.serving.policies import Policies, Source, open_source
from rljax.serving.records import has_finished
from rljax.serving.state import State, make_state
from rljax.training import command_line, config_files
from rljax.training.command_line import Flag
from rljax.training.run import resolve


def run(policy: str, beside: str, config: str, train: str, workdir: str, host: str, port: int) -> None:
    sock = server.open_socket(host, port)
    sources, training = [], None
    for path in filter(None, (policy, beside)):
        sources.append(open_source(path, config_files.load_config(config), tuple(s.name for s in sources)))
    if not sources:
        source = Source(Path(workdir).absolute().name, Path(workdir), resolve(config_files.load_config(train)))
        training = None if has_finished(source) else Training(source, train)
        sources = [source]
    state = make_state(
        Policies(sources),
        default_source=sources[0].name,
        **({"progress": training.progress} if training else {}),
    )
    try:
        with server.serve(state, sock) as address:
            warm_up(state)
            tell_address(state, address, training)
            threading.Event().wait()  # a signal ends the program
    finally:
        if training:
            training.end()


def tell_address(state: State, address: str, training: Training | None) -> None:
    """Where the page is, and what can be asked there."""
    if training:
        print(f"training {training.source.path}, which takes some minutes; the page shows how far it is", flush=True)
    print(f"the playground is at {address} with {len(state.policies.names())} policies; Ctrl-C ends it", flush=True)


def main() -> None:
    command_line.name_arguments("policy", "beside")
    command_line.main_without_config(
        run,
        policy=Flag("", "the folder of a run, or of a Hugging Face model; also as the first argument, without a name"),
        beside=Flag("", "a second one, to compare with; also as the second argument"),
        config=Flag("smollm2", "the config whose task asks a Hugging Face folder"),
        train=Flag("shop", "the config that is trained where no folder is named and there is no run yet"),
        workdir=Flag("runs/shop", "the folder of that run"),
        host=Flag("127.0.0.1", "the address to listen on; another than this one lets other machines ask"),
        port=Flag(8765, "the port to listen on; 0: any that is free", high=65_535),
    )


if __name__ == "__main__":
    main()
