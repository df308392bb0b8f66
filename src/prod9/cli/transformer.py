"""``prod9-train-transformer``: Stage 2."""

from prod9.cli.completion import inpaint, translate
from prod9.cli.generate import generate
from prod9.cli.run import guarded, new_app
from prod9.cli.sweep import sweep
from prod9.cli.verbs import add_shared_verbs

app = new_app("Stage 2: learn the tokens (MaskGIT transformer) and generate volumes.")
add_shared_verbs(app, 2)
for command in (generate, translate, inpaint, sweep):
    app.command()(command)

run = guarded(app)
