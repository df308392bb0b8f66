import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from prod9.data.brain_region_table import CLASS_NAMES
from prod9.data.brain_regions import RegionSampler
from prod9.data.volume_sets.volume_set import VolumeSet, of_tensor, without_classes
from prod9.errors import Prod9Error
from prod9.evaluation.domain_classifier import (
    balanced_accuracy,
    classifier_space,
    default_steps,
    small,
    train_classifier,
)
from prod9.evaluation.feature_spaces import features_of


def toy(count: int, seed: int, side: int = 8, name: str = "toy") -> VolumeSet:
    """Noise with a bright half: the first (class `low`) or the last (`high`) along one axis."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    volumes = 0.5 * torch.rand(count, 1, side, side, side, generator=generator)
    half = side // 2
    volumes[labels == 0, :, :half] += 0.3
    volumes[labels == 1, :, half:] += 0.3
    return of_tensor(volumes, labels, ("low", "high"), name)


def labels_of(collection: VolumeSet) -> Tensor:
    return torch.from_numpy(collection.labels)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(toy(40, seed=0), steps=40)


def test_what_differs_visibly_is_told_apart(classifier):
    test = toy(31, seed=1)
    assert torch.equal(classifier.predict(test), labels_of(test))
    assert classifier.class_names == ("low", "high")


@pytest.mark.parametrize("count", [2, 3, 10])
def test_few_volumes_are_enough_to_train(count):
    test = toy(20, seed=1)
    trained = train_classifier(toy(count, seed=0), steps=30)
    assert trained.right(test) > 0.9


def test_the_head_predicts_from_the_features(classifier):
    test = toy(70, seed=2)  # more than one batch
    features = features_of(classifier_space(classifier, test, test), test)
    assert features.shape == (70, 128)
    assert (features >= 0).all()
    predicted = classifier.predict(test)
    assert predicted.dtype == torch.int64
    assert torch.equal(predicted, classifier.head(features.float()).argmax(1))


def test_evaluation_leaves_the_network_alone(classifier):
    before = {k: v.clone() for k, v in classifier.body.state_dict().items()}
    first = classifier.predict(toy(5, seed=3))
    assert torch.equal(first, classifier.predict(toy(5, seed=3)))
    assert all(torch.equal(v, before[k]) for k, v in classifier.body.state_dict().items())
    assert not classifier.body.training
    assert not any(p.requires_grad for p in classifier.body.parameters())


def test_the_seed_decides_everything():
    train = toy(10, seed=0)
    first = train_classifier(train, steps=5, seed=3)
    torch.rand(7)  # what the global generator has done does not matter
    again, other = (train_classifier(train, steps=5, seed=seed) for seed in (3, 4))
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    for name, value in first.body.state_dict().items():
        assert torch.equal(value, again.body.state_dict()[name])


def test_the_global_random_state_is_left_alone():
    with torch.random.fork_rng():
        torch.manual_seed(20)  # a state that no other training can have left behind
        state = torch.get_rng_state()
        train_classifier(toy(4, seed=0), steps=2)
        assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("volumes", "steps"), [(10, 120), (971, 183), (6401, 1200), (10**5, 1200)])
def test_steps_that_suit_a_set(volumes, steps):
    assert default_steps(volumes) == steps


def test_large_sides_are_averaged_down_to_64():
    volume = torch.rand(2, 1, 128, 20, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(small(volume), F.avg_pool3d(volume, (2, 1, 1)))
    assert torch.equal(small(volume[:, :, :64]), volume[:, :, :64])
    assert small(torch.empty(1, 1, 65, 155, 3)).shape == (1, 1, 64, 64, 3)


def test_volumes_larger_than_that_are_told_apart():
    train, test = (toy(4, seed, side=72) for seed in (0, 1))
    trained = train_classifier(train, steps=8)
    assert torch.equal(trained.predict(test), labels_of(test))


def test_one_class_is_nothing_to_learn():
    for collection in (without_classes(toy(4, 0)), toy(6, 0).select([0, 2, 4])):
        with pytest.raises(Prod9Error, match="needs at least two classes; toy"):
            train_classifier(collection)


def test_balanced_accuracies_of_an_uneven_set():
    labels = torch.tensor([0] * 8 + [1] * 2 + [3] * 2)
    predicted = torch.tensor([0] * 8 + [1, 0] + [2, 2])
    assert balanced_accuracy(predicted, labels) == pytest.approx((1 + 1 / 2 + 0) / 3)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.parametrize("seed", range(5))
def test_balanced_accuracies_are_those_of_scikit_learn(seed):
    generator = torch.Generator().manual_seed(seed)
    labels, predicted = torch.randint(4, (2, 30), generator=generator)
    wanted = balanced_accuracy_score(labels, predicted)
    assert balanced_accuracy(predicted, labels) == pytest.approx(wanted)


def test_the_space_is_named_by_what_it_learned_and_how_well(classifier):
    test = toy(8, seed=5, name="toy/train")
    half = of_tensor(test.tensor(), torch.arange(8) // 4, test.class_names, "half")
    space = classifier_space(classifier, test, half)
    assert (space.key, space.weights_sha256) == ("classifier", classifier.weights_sha256)
    assert "toy/train" in space.name
    assert "50.0%" in space.name


def test_brain_regions_are_told_apart():
    sampler = RegionSampler(28)
    train, test = (
        of_tensor(
            sampler(torch.arange(n) % 11, torch.Generator().manual_seed(n))[:, None] / 255,
            torch.arange(n) % 11,
            CLASS_NAMES,
            "regions",
        )
        for n in (55, 44)
    )
    trained = train_classifier(train, steps=60)
    assert trained.right(test) > 0.8
