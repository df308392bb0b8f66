"""``prod9-train-transformer``: Stage 2."""

from prod9.cli.completion import inpaint, translate
from prod9.cli.generate import generate
from prod9.cli.run import guarded, new_app
from prod9.cli.sweep import sweep
from prod9.cli.verbs import Stage, add_shared_verbs
from prod9.config import Stage2Config
from prod9.evaluation.test_metrics import measure_stage2
from prod9.training import stage2

app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.")
add_shared_verbs(app, Stage(Stage2Config, stage2.train, measure_stage2))
for command in (generate, translate, inpaint, sweep):
    app.command()(command)

run = guarded(app)
