"""Algorithm distillation (Laskin et al. 2022): record how agents learn, and train on that.

    envs/ ──collect──▶ histories/ ──train──▶ logs/<run>/checkpoints ──evaluate──▶ results.*
          source agents           sequence model                    unseen tasks     │
                                      report.html ◀──report──┐                       │
                                     videos/<run>/ ◀──record──┴──────────────────────┘

Packages, each of which imports only packages above it in this list:

    errors, registry  expected failures with their exit codes; every component by its name
    config/           the experiment: settings, limits, YAML and command line
    runtime/          process and disk: files, locks, signals, devices, console, the run's folder
    data/             learning histories: schema, store, training windows
    sources/          algorithms whose learning is recorded
    collection/       how it is recorded and resumed
    models/           tokenizer, positions, cached decoding; encoders/ memories/
    methods/          what is learned from windows, and how it acts
    rollout/          episodes in lockstep with a method and its context
    training/         trainer, loop and its callbacks, optimizer, checkpoints, provenance
    evaluation/       scores on held-out and train tasks, references, transfer to other worlds
    reporting/        report, tables, plots, videos, verification of files
    pipeline          the verbs of one run in turn: collect, train, evaluate, record, report
    check             a small experiment that tries components against their contracts
    doctor            a short look at why a world does not learn; findings are its sentences
    scaffold          files to begin with: components from templates/, experiments
    interpret/        looking inside a trained model: hooks, contexts, analyses, page, app
    exchange/         histories and trained models in formats that others read
    entry             releases with the scores that they claim, and whether these stand;
                      entry_scores evaluates them again
    play              the app on a released model
    sweeps/           many runs: plan, run, records, pages; launchers/ start verbs as processes
    cli               the command line: one table of verbs and their options

Shapes: B windows, N environments in lockstep, T transitions, L tokens, E episodes, H heads, D head
width, C model width, A actions, K tasks, S observations; a docstring says where a letter differs.

Words: a *task* is an MDP of the world's family; a *held-out* task is not trained on. A *learning
history* holds all transitions of one source agent on one task, an *actor* is one of its parallel
environments; the *sequence* that windows are cut from has every k-th episode of an actor. A source
that knows the family of tasks is *informed*; what a source knows beforehand is its *privileged
information*. An *experiment* is a YAML file, a *run* what it makes under `logs/`, a *record* a line
of results (the verb `record` makes videos). A *sweep* is many runs: *groups* of *rows*, whose runs
differ in seeds; a *cell* is a row in a group, a *board* some groups and rows with a page of their
own, and the *measure* what is recorded of a run. A *reference* is a score to compare with, of a
policy that is not trained on histories. A *batch* is one of training, a *micro-batch* a slice of
it, a *chunk* a block of transitions. A *rollout* is the evaluation of a policy in lockstep, or the
block of steps that a source agent learns from. NAUC is the mean over the in-context episodes of
return / optimal return.
"""
