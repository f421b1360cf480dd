"""All components that a configuration can name: a table for each kind, name -> "module:Class".

`Registry.load` imports the class; the tables import nothing. To add a component, write its file and
add a line here. `envs.registry` says how other packages and a user's own file add one.
"""

from typing import TYPE_CHECKING

from envs.registry import Registry

if TYPE_CHECKING:  # the classes of the tables, which only a type checker reads here
    from ad.exchange.formats import Format
    from ad.interpret.analysis import Analysis
    from ad.interpret.situations import Situations
    from ad.methods.base import Method
    from ad.models.encoders.base import Encoder
    from ad.models.memories.base import Memory
    from ad.models.tokenizer import Tokenizer
    from ad.sources.base import Source
    from ad.sweeps.launchers.base import Launcher

SOURCES: "Registry[Source]" = Registry(
    "source algorithm",
    {
        "a2c": "ad.sources.a2c:A2C",
        "demonstrations": "ad.sources.demonstrations:Demonstrations",
        "noise_distillation": "ad.sources.noisy_expert:NoiseDistillation",
        "posterior_sampling": "ad.sources.posterior_sampling:PosteriorSampling",
        "ppo": "ad.sources.ppo:PPO",
        "psrl": "ad.sources.psrl:PSRL",
        "q_learning": "ad.sources.q_learning:QLearning",
        "stable_baselines3": "ad.sources.sb3.source:StableBaselines3",
        "thompson_sampling": "ad.sources.thompson_sampling:ThompsonSampling",
        "ucb": "ad.sources.ucb:UCB",
    },
    group="sources",
    needs=("Settings", "run"),
    base="ad.sources.base:Source",
)

METHODS: "Registry[Method]" = Registry(
    "method",
    {
        "algorithm_distillation": "ad.methods.algorithm_distillation:AlgorithmDistillation",
        "expert_distillation": "ad.methods.expert_distillation:ExpertDistillation",
        "behavior_cloning": "ad.methods.behavior_cloning:BehaviorCloning",
        "context_value": "ad.methods.context_value:ContextValue",
        "decision_transformer": "ad.methods.decision_transformer:DecisionTransformer",
        "dpt": "ad.methods.dpt:DecisionPretrainedTransformer",
        "in_context_q": "ad.methods.in_context_q:InContextQ",
        "in_context_planning": "ad.methods.in_context_planning:InContextPlanning",
        "rl2": "ad.methods.rl2:RL2",
        "source": "ad.methods.source_alone:SourceAlone",
    },
    group="methods",
    base="ad.methods.base:Method",
)

TOKENIZERS: "Registry[Tokenizer]" = Registry(
    "tokenizer",
    {
        "fused": "ad.models.tokenizer:FusedTokens",
        "separate": "ad.models.tokenizer:InterleavedTokens",
        "modal": "ad.models.tokenizer:ParallelStreams",
        "conditioned": "ad.models.conditioned_tokens:ConditionedTokens",
    },
    group="tokenizers",
)

ENCODERS: "Registry[Encoder]" = Registry(
    "observation encoder",
    {
        "table": "ad.models.encoders.table:TableEncoder",
        "factored": "ad.models.encoders.factored:FactoredEncoder",
        "offsets": "ad.models.encoders.offsets:OffsetEncoder",
        "words": "ad.models.encoders.words:MissionWords",
        "mlp": "ad.models.encoders.mlp:MLPEncoder",
        "one_hot": "ad.models.encoders.linear:OneHotLinear",
        "index": "ad.models.encoders.linear:IndexLinear",
        "bag_of_words": "ad.models.encoders.bag_of_words:BagOfWords",
        "patches": "ad.models.encoders.patches:FlatPatches",
        "cnn": "ad.models.encoders.cnn:ConvolutionalEncoder",
        "vit": "ad.models.encoders.vit:VisionTransformer",
    },
    group="encoders",
    needs=("supports",),
    base="ad.models.encoders.base:Encoder",
)

POSITIONS = Registry(
    "position embedding",
    {
        "env_time": "ad.models.positions:EnvTime",
        "window": "ad.models.positions:WindowIndex",
        "history": "ad.models.positions:HistoryIndex",
        "rotary": "ad.models.positions:Rotary",
        "none": "ad.models.positions:NoPosition",
    },
    group="positions",
)

REWARDS = Registry(
    "reward embedding",
    {
        "table": "ad.models.rewards:table_or_projection",
        "projection": "ad.models.rewards:RewardProjection",
        "none": "ad.models.rewards:NoReward",
    },
    group="rewards",
)

MEMORIES: "Registry[Memory]" = Registry(
    "memory",
    {
        "transformer": "ad.models.memories.transformer:Transformer",
        "gru": "ad.models.memories.gru:GRU",
        "min_gru": "ad.models.memories.min_gru:MinGRU",
        "xl": "ad.models.memories.xl:TransformerXL",
        "retrieval": "ad.models.memories.retrieval:Retrieval",
    },
    group="memories",
    needs=("forward", "new_cache"),
    base="ad.models.memories.base:Memory",
)

ANALYSES: "Registry[Analysis]" = Registry(
    "analysis",
    {  # in the order in which they run
        "attention": "ad.interpret.analyses.attention:Attention",
        "attribution": "ad.interpret.analyses.attribution:Attribution",
        "lens": "ad.interpret.analyses.lens:Lens",
        "ablation": "ad.interpret.analyses.ablation:Ablation",
        "patching": "ad.interpret.analyses.patching:Patching",
        "path_patching": "ad.interpret.analyses.path_patching:PathPatching",
        "attribution_patching": "ad.interpret.analyses.attribution_patching:AttributionPatching",
        "scrubbing": "ad.interpret.analyses.scrubbing:Scrubbing",
        "context_scan": "ad.interpret.analyses.context_scan:ContextScan",
        "return_scan": "ad.interpret.analyses.return_scan:ReturnScan",
        "behavior": "ad.interpret.analyses.behavior:Behavior",
        "probes": "ad.interpret.analyses.probes:Probes",
        "successes": "ad.interpret.analyses.successes:Successes",
        "static": "ad.interpret.analyses.static:Static",
        "weights": "ad.interpret.analyses.weights:Weights",
        "circuits": "ad.interpret.analyses.circuits:Circuits",
        "claims": "ad.interpret.analyses.claims:Claims",
    },
    group="analyses",
    needs=("run", "table"),
    base="ad.interpret.analysis:Analysis",
)

SITUATIONS: "Registry[Situations]" = Registry(
    "kind of situations",
    {  # by the class of a world or one of its bases
        "MiniGridVectorEnv": "ad.interpret.situations:MiniGridSituations",
    },
    group="situations",
    needs=("names", "holds"),
    base="ad.interpret.situations:Situations",
)

EXPORTS: "Registry[Format]" = Registry(
    "format of histories",
    {
        "minari": "ad.exchange.minari:Minari",
        "parquet": "ad.exchange.parquet:Parquet",
        "xland": "ad.exchange.xland:XLand",
    },
    group="exports",
    needs=("write", "open"),
    base="ad.exchange.formats:Format",
)

LAUNCHERS: "Registry[Launcher]" = Registry(
    "launcher",
    {
        "local": "ad.sweeps.launchers.local:Local",
        "submitit": "ad.sweeps.launchers.submitit:Submitit",
        "ray": "ad.sweeps.launchers.ray:Ray",
    },
    group="launchers",
    needs=("Settings", "run"),
    base="ad.sweeps.launchers.base:Launcher",
)
