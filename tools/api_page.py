"""Write ``docs/api.md``: examples, and the public names of prod9 from their docstrings.

``python tools/api_page.py > docs/api.md``; with ``--check FILE``, compare instead.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prod9

INTRODUCTION = """\
The Python API: trained models applied to paths, arrays and images.

Load a trained Stage 2 and generate; results are nibabel images:

```python
import prod9

model = prod9.load("outputs/stage2")  # a run, a configuration, a model folder, user/name on the hub
print(model.class_names)
first, second = model.generate(label="T1", n=2, seed=0, steps=4)
first.to_filename("generated.nii.gz")
```

Make a missing channel, or sample a part anew; an array in gives arrays, a path or an image images:

```python
(flair,) = model.translate({"T1": "t1.nii.gz", "T2": "t2.nii.gz"}, target="FLAIR")
(filled,) = model.inpaint("t1.nii.gz", mask="mask.nii.gz", channel="T1", seed=1)
```

Tokens:

```python
encoded = model.tokenizer.encode("t1.nii.gz")
print(encoded.tokens.shape, model.tokenizer.codebook_size)
image = model.tokenizer.decode(encoded)

tokenizer = prod9.Tokenizer.load("autoencoder.pt", device="cpu")
volume = first.get_fdata()
array = tokenizer.reconstruct(volume)
```

Save a model as a folder for others ([Sharing a model](sharing.md)), or make one from a run:

```python
model.save("shared", licence="CC-BY-4.0")
same = prod9.load("shared")
prod9.export("outputs/stage2", "bundle", monai_bundle=True)
```

Measure and train. Both work for minutes or days; `progress=True` shows on stderr how far they are:

```python
figures = prod9.evaluate(real="real/", generated="generated/", features=["efficientnet"])
print(figures.generation.spaces[0].generated.frechet)
```

```python
model = prod9.train("stage2.yaml", ["trainer.max_epochs=1"], overwrite=True)
```

Every mistake that can be mended is a `prod9.Prod9Error`, one sentence that says what and where:

```python
try:
    prod9.load("nowhere.pt")
except prod9.Prod9Error as error:
    print(error)
```
"""
_INTERNAL = {"EncodedVolume.load", "Model.of", "Tokenizer.measured", "Tokenizer.volume_of"}


def text_of(thing: Any) -> str:
    """Return the docstring as Markdown."""
    lines, code = [], False
    for line in (inspect.getdoc(thing) or "").splitlines():
        fence = line.startswith("```")
        if code or fence:
            lines.append(line)
            code ^= fence
        elif line in ("Args:", "Returns:", "Raises:"):
            lines += ["", f"*{line}*", ""]
        elif found := re.match(r"    (\w[\w, ]*): (.*)", line):
            lines.append(f"- `{found[1]}`: {found[2]}")
        else:
            in_list = bool(lines) and lines[-1].startswith(("- ", "  "))
            lines.append("  " * in_list + line.strip())
    text = re.sub(r":\w+:`~?\.?([^`<]*?)`", r"`\1`", "\n".join(lines))
    text = re.sub(r"(?<!`)``(?!`)", "`", text)
    return re.sub(r"\n{3,}", "\n\n", text)


def signature_of(name: str, thing: Any) -> str:
    """Return the signature without the annotations, which are long; the text says what is taken."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(thing).parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return f"{name}{inspect.Signature(parameters)}"


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the public members that the class itself defines, and that say what they are."""
    for name, member in vars(kind).items():
        if f"{kind.__name__}.{name}" in _INTERNAL:
            continue
        member = getattr(member, "__func__", member)
        member = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and inspect.isfunction(member) and inspect.getdoc(member):
            yield name, vars(kind)[name]


def page() -> str:
    """Return the page."""
    parts = ["# Python API", INTRODUCTION.strip(), "What the names do, from their docstrings:"]
    for name in prod9.__all__:
        thing = getattr(prod9, name)
        is_class = inspect.isclass(thing)
        parts += [f"## prod9.{name if is_class else signature_of(name, thing)}", text_of(thing)]
        for own, member in members(thing) if is_class else ():
            is_property = isinstance(member, property)
            title = own if is_property else signature_of(own, getattr(member, "__func__", member))
            parts += [f"### {name}.{title}", text_of(member)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        if Path(sys.argv[2]).read_text(encoding="utf-8") != page():
            sys.exit(f"{sys.argv[2]} is out of date: make pages")
    else:
        sys.stdout.write(page())
