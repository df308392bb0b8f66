"""The Python API: trained models applied to paths, arrays and images.

Load a trained Stage 2 and generate; results are nibabel images:

```python
import prod9

model = prod9.load("outputs/stage2")  # a run folder, a transformer.pt, or a configuration
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
